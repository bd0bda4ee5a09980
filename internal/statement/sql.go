package statement

import (
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/policy"
)

// SQL tells what a text of one or more statements can change: the worst of them.
//
// SELECT and its like read, unless they lock rows, write to a table or call a
// function that is not known to only compute. INSERT, UPDATE and MERGE write.
// DELETE, TRUNCATE, all DDL, and what runs code (CALL, EXECUTE, DO, blocks) is
// destructive. GRANT, REVOKE, and DDL about users, roles, policies, shares,
// secrets and integrations is access.
// Without a dialect nothing is known of it.
func SQL(src string, d Dialect) Verdict {
	if !slices.Contains(Dialects(), d) {
		return destructive("whose SQL it is is not known")
	}
	all, err := lex(src, d)
	if err != nil {
		return destructive("the statement cannot be read")
	}
	out := Verdict{Effect: policy.Read}
	found := false
	for len(all) > 0 {
		end := slices.IndexFunc(all, func(t token) bool { return t.op(";") || t.op("->>") && d == Snowflake })
		if end < 0 {
			end = len(all)
		}
		if end > 0 {
			found = true
			s := sql{t: all[:end], dialect: d}
			out = out.worse(s.statement())
		}
		all = all[min(end+1, len(all)):]
	}
	if !found {
		return destructive("there is no statement")
	}
	return out
}

// sql is one statement.
type sql struct {
	t       []token
	dialect Dialect
	plain   map[int]bool // words before a parenthesis that call nothing
}

func (s *sql) at(i int) token {
	if i < 0 || i >= len(s.t) {
		return token{}
	}
	return s.t[i]
}

func (s *sql) statement() Verdict {
	if !s.balanced() {
		return destructive("the statement cannot be read")
	}
	s.plain = map[int]bool{}
	i := 0
	for s.at(i).op("(") {
		i++
	}
	v := s.verb(i)
	if policy.Worse(v.Effect, policy.Destructive) == v.Effect {
		return v // no part of it is worse
	}
	return v.worse(s.parts(i))
}

func (s *sql) balanced() bool {
	depth := 0
	for _, t := range s.t {
		if t.op("(") {
			depth++
		} else if t.op(")") {
			depth--
		}
		if depth < 0 {
			return false
		}
	}
	return depth == 0
}

// verb judges a statement by the words that it begins with.
func (s *sql) verb(i int) Verdict {
	first := s.at(i)
	switch {
	case first.is("SELECT", "VALUES", "TABLE", "WITH"):
		return Verdict{Effect: policy.Read}
	case first.is("SHOW", "DESC", "DESCRIBE", "LIST", "LS"):
		if i > 0 {
			return destructive("the statement cannot be read")
		}
		return Verdict{Effect: policy.Read}
	case first.is("EXPLAIN"):
		return s.explain(i + 1)
	case first.is("INSERT"):
		if s.at(i + 1).is("OVERWRITE") {
			return destructive("INSERT OVERWRITE empties the table first")
		}
		s.targetColumns(i + 1)
		return Verdict{policy.Write, "INSERT adds rows"}
	case first.is("UPDATE"):
		return Verdict{policy.Write, "UPDATE changes rows"}
	case first.is("MERGE"):
		return Verdict{policy.Write, "MERGE changes rows"}
	case first.is("COPY"):
		s.targetColumns(i + 1)
		if s.dialect == Snowflake && s.at(i+1).is("INTO") && (s.at(i+2).kind == word || s.at(i+2).kind == name) {
			return Verdict{policy.Write, "COPY INTO loads rows"}
		}
		return destructive("COPY moves data in or out")
	case first.is("BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ABORT"):
		return s.transaction(i)
	case first.is("SET", "UNSET", "RESET", "USE"):
		return Verdict{policy.Write, first.text + " changes what later statements mean"}
	case first.is("GRANT", "REVOKE"):
		return Verdict{policy.Access, first.text + " changes who may do what"}
	case first.is("CREATE", "ALTER", "DROP", "REASSIGN", "SECURITY"):
		return s.definition(i)
	case first.is("DELETE", "TRUNCATE"):
		return destructive(first.text + " removes rows")
	case first.is("CALL", "EXECUTE", "DO", "DECLARE", "PREPARE", "LET"):
		return destructive(first.text + " runs code that is not read here")
	}
	return destructive("what the statement does is not known")
}

// explain judges the statement that is explained: EXPLAIN ANALYZE runs it.
func (s *sql) explain(i int) Verdict {
	if s.at(i).op("(") && !s.at(i+1).is("SELECT", "VALUES", "WITH", "TABLE") {
		i = s.past(i)
	}
	for s.at(i).is("ANALYZE", "VERBOSE", "USING", "JSON", "TABULAR", "TEXT") {
		i++
	}
	for s.at(i).op("(") {
		i++
	}
	if s.at(i).is("EXPLAIN") {
		return destructive("the statement cannot be read")
	}
	return s.verb(i)
}

// transaction judges what begins like one. BEGIN may also begin a block of code.
func (s *sql) transaction(i int) Verdict {
	for _, t := range s.t[i+1:] {
		harmless := t.is("TRANSACTION", "WORK", "ISOLATION", "LEVEL", "READ", "ONLY", "WRITE", "SERIALIZABLE", "REPEATABLE", "COMMITTED", "UNCOMMITTED",
			"DEFERRABLE", "NOT", "AND", "CHAIN", "NO", "TO", "SAVEPOINT") || t.op(",")
		if !harmless && (s.at(i).is("BEGIN") || t.kind == op) {
			return destructive("a block runs code that is not read here")
		}
	}
	return Verdict{policy.Write, s.at(i).text + " changes when other statements count"}
}

// definition judges DDL. What gives somebody access outlives the session.
func (s *sql) definition(i int) Verdict {
	inside := false // of parentheses, where columns have their names
	for _, t := range s.t[i+1:] {
		if inside = inside || t.op("("); inside && !t.is("GRANT") {
			continue
		}
		if t.is("GRANT", "USER", "USERS", "ROLE", "ROLES", "GROUP", "SHARE", "SHARES", "SECRET", "INTEGRATION", "POLICY", "SERVER", "MAPPING", "SUBSCRIPTION", "PUBLICATION", "ACCOUNT",
			"SYSTEM", "PRIVILEGES", "OWNER", "OWNED", "LABEL", "LISTING", "PASSWORD", "LOGIN", "CREDENTIAL", "CREDENTIALS", "AUTHENTICATION", "NETWORK") {
			return Verdict{policy.Access, s.at(i).text + " " + t.text + " changes who may do what"}
		}
	}
	return destructive(s.at(i).text + " changes what is stored, and how")
}

// past is the place behind the parenthesis that opens at i.
func (s *sql) past(i int) int {
	depth := 0
	for ; i < len(s.t); i++ {
		if s.t[i].op("(") {
			depth++
		} else if s.t[i].op(")") {
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return i
}

// parts judges what stands inside a statement: data that is changed on the way,
// and the functions that are called.
func (s *sql) parts(start int) Verdict {
	query := s.at(start).is("SELECT", "VALUES", "TABLE", "WITH", "EXPLAIN")
	out := Verdict{Effect: policy.Read}
	for i, t := range s.t {
		switch {
		case t.is("WITH"):
			s.names(i + 1)
		case i == start:
		case t.is("DELETE", "TRUNCATE"):
			out = out.worse(destructive(t.text + " removes rows"))
		case t.is("INSERT"):
			s.targetColumns(i + 1)
			out = out.worse(Verdict{policy.Write, "INSERT adds rows"})
		case t.is("UPDATE", "MERGE"):
			out = out.worse(Verdict{policy.Write, t.text + " changes or locks rows"})
		case t.is("INTO") && query:
			if !s.at(i-1).is("INSERT", "MERGE") || s.at(i-2).op(".") {
				out = out.worse(destructive("SELECT INTO makes a table"))
			}
		case t.is("NEXTVAL") && s.at(i-1).op("."):
			out = out.worse(Verdict{policy.Write, "NEXTVAL moves a sequence"})
		case t.is("SHARE") && s.at(i-1).is("FOR", "KEY"):
			out = out.worse(Verdict{policy.Write, "FOR SHARE locks rows"})
		case t.is("CALL", "EXECUTE", "GRANT", "ALTER", "DROP", "CREATE"):
			out = out.worse(destructive(t.text + " stands inside the statement"))
		}
		if t.op("(") {
			out = out.worse(s.call(i))
		}
	}
	return out
}

// names marks the names that a WITH gives to queries, which may list columns.
func (s *sql) names(i int) {
	if s.at(i).is("RECURSIVE") {
		i++
	}
	for {
		at := i
		if k := s.at(i).kind; k != word && k != name {
			return
		}
		if i++; s.at(i).op("(") {
			if !s.listOfNames(i) {
				return
			}
			i = s.past(i)
		}
		if !s.at(i).is("AS") {
			return
		}
		for i++; s.at(i).is("NOT", "MATERIALIZED"); i++ {
		}
		if !s.at(i).op("(") {
			return
		}
		s.plain[at], s.plain[i-1] = true, true
		if i = s.past(i); !s.at(i).op(",") {
			return
		}
		i++
	}
}

// targetColumns marks the table of an INSERT, which may list columns.
func (s *sql) targetColumns(i int) {
	for s.at(i).is("INTO", "TABLE", "ALL", "FIRST") {
		i++
	}
	for {
		if k := s.at(i).kind; k != word && k != name {
			return
		}
		if !s.at(i + 1).op(".") {
			break
		}
		i += 2
	}
	if s.at(i+1).is("AS") && (s.at(i+2).kind == word || s.at(i+2).kind == name) {
		i += 2
	}
	if s.at(i+1).op("(") && s.listOfNames(i+1) {
		s.plain[i] = true
	}
}

// listOfNames reports that the parenthesis at i holds names and commas only.
func (s *sql) listOfNames(i int) bool {
	for i++; ; i += 2 {
		if k := s.at(i).kind; k != word && k != name {
			return false
		}
		if s.at(i + 1).op(")") {
			return true
		}
		if !s.at(i + 1).op(",") {
			return false
		}
	}
}

// call judges the word before the parenthesis at i.
func (s *sql) call(i int) Verdict {
	f, before := s.at(i-1), s.at(i-2)
	unknown := func() Verdict {
		what := f.text
		if len(what) > 60 {
			what = what[:60]
		}
		return destructive("the function " + strings.ToValidUTF8(what, "") + " may do anything")
	}
	switch {
	case f.op(")"):
		return destructive("the statement cannot be read")
	case f.kind == text || f.kind == number:
		return destructive("the statement cannot be read")
	case f.kind != word && f.kind != name, s.plain[i-1]:
		return Verdict{Effect: policy.Read}
	case f.kind == word && !before.op(".") && s.opens(f, before):
		return Verdict{Effect: policy.Read}
	case before.is("AS") || before.op("::"): // an alias with columns, or a type with its size
		return Verdict{Effect: policy.Read}
	}
	called := f.text
	if f.kind == name {
		folds := strings.ToUpper(called)
		if s.dialect != Snowflake {
			folds = strings.ToLower(called)
		}
		if folds != called {
			return unknown()
		}
		called = strings.ToUpper(called)
	}
	if before.op(".") {
		switch schema := s.at(i - 3); {
		case s.dialect == Postgres && schema.is("PG_CATALOG"):
		case s.dialect == Snowflake && schema.is("INFORMATION_SCHEMA"):
			return Verdict{Effect: policy.Read}
		default:
			return unknown()
		}
	}
	switch {
	case slices.Contains([]string{"NEXTVAL", "SETVAL"}, called):
		return Verdict{policy.Write, called + " moves a sequence"}
	case called == "SET_CONFIG":
		return Verdict{policy.Write, "SET_CONFIG changes what later statements mean"}
	case !computes(called):
		return unknown()
	}
	return Verdict{Effect: policy.Read}
}

// opens reports that a keyword, and not a call, stands before a parenthesis.
func (s *sql) opens(f, before token) bool {
	switch f.text {
	case "ALL", "AND", "ANY", "ARRAY", "AS", "BETWEEN", "CASE", "DISTINCT", "ELSE", "EXCEPT", "EXISTS", "FROM", "HAVING", "ILIKE", "IN", "INTERSECT", "JOIN",
		"LATERAL", "LIKE", "LIMIT", "NOT", "OFFSET", "ON", "ONLY", "OR", "RETURNING", "ROW", "SELECT", "SOME", "TABLE", "THEN", "TO", "UNION", "USING", "VALUES",
		"WHEN", "WHERE", "TABLESAMPLE":
		return true
	case "BY":
		return before.is("ORDER", "GROUP", "PARTITION", "CONNECT", "CLUSTER")
	case "OVER", "FILTER":
		return before.op(")") || before.is("NULLS")
	case "GROUP":
		return before.is("WITHIN")
	case "SETS":
		return before.is("GROUPING")
	case "ROLLUP", "CUBE":
		return before.is("BY")
	case "VARYING":
		return before.is("CHARACTER", "CHAR", "BIT")
	case "SET":
		return s.t[0].is("UPDATE", "INSERT", "MERGE")
	case "INSERT":
		return before.is("THEN") // of a MERGE
	case "CONFLICT":
		return before.is("ON")
	case "EXPLAIN":
		return before == token{}
	case "MINUS", "QUALIFY", "AT", "BEFORE", "PIVOT", "UNPIVOT", "SAMPLE", "EXCLUDE", "RENAME", "FETCH":
		return s.dialect == Snowflake
	}
	return false
}
