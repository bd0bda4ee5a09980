-- Leases: who may do a task alone, on all nodes, until when.
create table lease (
	name  text primary key,
	owner text not null,
	until bigint not null
);
