package account

import (
	"slices"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Role is what a member may do in one organization. Owner, admin, approver and
// member each include the next; an auditor only reads.
type Role string

const (
	RoleOwner    Role = "owner"
	RoleAdmin    Role = "admin"
	RoleApprover Role = "approver"
	RoleMember   Role = "member"
	RoleAuditor  Role = "auditor"
)

// ParseRole accepts the exact names only.
func ParseRole(s string) (Role, error) {
	r := Role(s)
	if !slices.Contains([]Role{RoleOwner, RoleAdmin, RoleApprover, RoleMember, RoleAuditor}, r) {
		return "", fault.New(fault.Invalid, "invalid_role", "A role is owner, admin, approver, member or auditor.")
	}
	return r, nil
}

// Scope is what an API key may do. The list is closed.
type Scope = string

const (
	ScopeVaultRead          Scope = "vault:read"
	ScopeVaultWrite         Scope = "vault:write"
	ScopeVaultDelete        Scope = "vault:delete"
	ScopeConnectionsRead    Scope = "connections:read"
	ScopeConnectionsWrite   Scope = "connections:write"
	ScopeConnectionsVend    Scope = "connections:vend"
	ScopeAgentsRead         Scope = "agents:read"
	ScopeAgentsWrite        Scope = "agents:write"
	ScopeSessionsRead       Scope = "sessions:read"
	ScopeSessionsRevoke     Scope = "sessions:revoke"
	ScopeProvidersWrite     Scope = "providers:write"
	ScopeOrganizationsWrite Scope = "organizations:write"
	ScopeUsersRead          Scope = "users:read"
	ScopeUsersWrite         Scope = "users:write"
	ScopeUsersVouch         Scope = "users:vouch"
	ScopeAuditRead          Scope = "audit:read"
	ScopeKeysRead           Scope = "keys:read"
	ScopeKeysWrite          Scope = "keys:write"
	ScopeWebhooksWrite      Scope = "webhooks:write"
)

// Scopes lists them all, in the order in which people see them.
func Scopes() []Scope {
	return []Scope{
		ScopeVaultRead, ScopeVaultWrite, ScopeVaultDelete,
		ScopeConnectionsRead, ScopeConnectionsWrite, ScopeConnectionsVend,
		ScopeAgentsRead, ScopeAgentsWrite, ScopeSessionsRead, ScopeSessionsRevoke,
		ScopeProvidersWrite, ScopeOrganizationsWrite, ScopeUsersRead, ScopeUsersWrite, ScopeUsersVouch, ScopeAuditRead,
		ScopeKeysRead, ScopeKeysWrite, ScopeWebhooksWrite,
	}
}

// Permission is one thing that a role or a scope allows in one organization,
// or, asked for no organization, in a whole environment.
type Permission string

const (
	View              Permission = "view"    // see that the organization and its agents and connections exist
	UseOwn            Permission = "use_own" // have own agents and connections
	ViewMembers       Permission = "view_members"
	ManageMembers     Permission = "manage_members"   // only owners make, change and remove owners
	VouchUsers        Permission = "vouch_users"      // applications only: sign a user of their making in, to connect accounts
	ManageAgents      Permission = "manage_agents"    // everybody's
	ApproveSessions   Permission = "approve_sessions" // on connections of the organization
	ViewConnections   Permission = "view_connections"
	ManageConnections Permission = "manage_connections" // those of the organization
	VendConnections   Permission = "vend_connections"   // applications only
	ViewSessions      Permission = "view_sessions"      // everybody's
	Revoke            Permission = "revoke"             // everybody's
	ReadAudit         Permission = "read_audit"
	ViewSecrets       Permission = "view_secrets"   // names, never values
	RevealSecrets     Permission = "reveal_secrets" // a person must also prove presence for each
	WriteSecrets      Permission = "write_secrets"
	DeleteSecrets     Permission = "delete_secrets"
	CreateKeys        Permission = "create_keys"         // a person must also prove presence for each
	ManageProviders   Permission = "manage_providers"    // an environment's
	ManageTenants     Permission = "manage_tenants"      // make organizations and environments
	ManageSettings    Permission = "manage_organization" // of one organization
	ManageWebhooks    Permission = "manage_webhooks"     // see and change who is told of what happens
	ViewKeys          Permission = "view_keys"           // which key seals what, and where it lies
	ManageRootKeys    Permission = "manage_root_keys"    // replace, bind and destroy keys; a person must also prove presence for the latter two
)

// permissions lists them all.
func permissions() []Permission {
	return []Permission{View, UseOwn, ViewMembers, ManageMembers, VouchUsers, ManageAgents, ApproveSessions, ViewConnections, ManageConnections, VendConnections,
		ViewSessions, Revoke, ReadAudit, ViewSecrets, RevealSecrets, WriteSecrets, DeleteSecrets, CreateKeys, ManageProviders, ManageTenants, ManageSettings, ManageWebhooks, ViewKeys, ManageRootKeys}
}

// rule says who holds a permission. No scope means that no application does.
type rule struct {
	roles []Role
	scope Scope
}

// rules is the whole table. A permission that is not in it is nobody's.
func rules(p Permission) rule {
	var (
		all       = []Role{RoleOwner, RoleAdmin, RoleApprover, RoleMember, RoleAuditor}
		acting    = []Role{RoleOwner, RoleAdmin, RoleApprover, RoleMember}
		deciding  = []Role{RoleOwner, RoleAdmin, RoleApprover}
		reviewing = []Role{RoleOwner, RoleAdmin, RoleApprover, RoleAuditor}
		managing  = []Role{RoleOwner, RoleAdmin}
	)
	switch p {
	case View:
		return rule{all, ScopeAgentsRead}
	case UseOwn:
		return rule{acting, ""}
	case ViewMembers:
		return rule{all, ScopeUsersRead}
	case ManageMembers:
		return rule{managing, ScopeUsersWrite}
	case VouchUsers:
		return rule{nil, ScopeUsersVouch}
	case ManageAgents:
		return rule{managing, ScopeAgentsWrite}
	case ApproveSessions:
		return rule{deciding, ""}
	case ViewConnections:
		return rule{all, ScopeConnectionsRead}
	case ManageConnections:
		return rule{managing, ScopeConnectionsWrite}
	case VendConnections:
		return rule{nil, ScopeConnectionsVend}
	case ViewSessions:
		return rule{reviewing, ScopeSessionsRead}
	case Revoke:
		return rule{deciding, ScopeSessionsRevoke}
	case ReadAudit:
		return rule{[]Role{RoleOwner, RoleAdmin, RoleAuditor}, ScopeAuditRead}
	case ViewSecrets:
		return rule{[]Role{RoleOwner, RoleAdmin, RoleAuditor}, ScopeVaultRead}
	case RevealSecrets:
		return rule{[]Role{RoleOwner}, ScopeVaultRead}
	case WriteSecrets:
		return rule{managing, ScopeVaultWrite}
	case DeleteSecrets:
		return rule{managing, ScopeVaultDelete}
	case CreateKeys:
		return rule{managing, ""}
	case ManageProviders:
		return rule{managing, ScopeProvidersWrite}
	case ManageTenants:
		return rule{managing, ScopeOrganizationsWrite}
	case ViewKeys:
		return rule{[]Role{RoleOwner, RoleAdmin, RoleAuditor}, ScopeKeysRead}
	case ManageRootKeys:
		return rule{managing, ScopeKeysWrite}
	case ManageSettings:
		return rule{managing, ScopeOrganizationsWrite}
	case ManageWebhooks:
		return rule{managing, ScopeWebhooksWrite}
	}
	return rule{}
}

// May reports whether r has p.
func (r Role) May(p Permission) bool { return slices.Contains(rules(p).roles, r) }

// gains reports whether r may do something that old may not; no role at all may
// nothing.
func (r Role) gains(old Role) bool {
	return slices.ContainsFunc(permissions(), func(p Permission) bool { return r.May(p) && !old.May(p) })
}

// raises reports whether giving r for old raises authority. Taking an owner's
// place does too: owners are who could undo the rest.
func raises(old, r Role) bool { return r.gains(old) || old == RoleOwner && r != RoleOwner }
