// Package failpoint names the places where a process may die or a step may fail,
// so that tests can make it happen there: before a commit, after it, between a
// provider's answer and the row that keeps it.
//
// In the product nothing of it exists: every function is empty, the compiler
// removes the calls and the names with them, and TestNothingIsLeft holds that.
// Built with -tags failpoint, the process reads two variables at its first hit:
//
//	AMBIT_FAILPOINT        name=action[@n], several separated by ";"
//	AMBIT_FAILPOINT_TRACE  a file to which each name is appended as it is passed
//
// The action is kill (SIGKILL to the process itself), error (the step fails, once)
// or sleep:DURATION. It happens at the nth hit of the name, by default the first.
// A name says "step: moment". A transaction has those of what it records in the
// audit, such as "session.approved event: before commit", or else that of the
// function that began it, such as "credential.takeFlow: after commit".
package failpoint
