package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

// usageError marks a wrong command line.
type usageError struct{ error }

// failed is an error as people and programs get it.
type failed struct {
	exit                int
	code, message, hint string
	page                string // where a person goes on
	fields              map[string]string
}

// report prints an error of cmd for a person, or as JSON, and gives the exit code.
func (c *command) report(err error, cmd *cobra.Command) int {
	f := c.failure(err, cmd)
	if c.json {
		c.reportJSON(f)
		return f.exit
	}
	// What a server says goes to a terminal, so it must not steer one.
	fmt.Fprintf(c.stderr, "ambit: %s\n", plainLines(f.message))
	if f.hint != "" && (f.page == "" || !strings.Contains(f.hint, f.page)) {
		fmt.Fprintf(c.stderr, "       %s\n", strings.ReplaceAll(plainLines(f.hint), "\n", "\n       "))
	}
	if f.page != "" { // on a line of its own, to be opened or copied whole
		fmt.Fprintf(c.stderr, "       Go on in your browser:\n\n  %s\n", plain(f.page))
	}
	return f.exit
}

func (c *command) failure(err error, cmd *cobra.Command) failed {
	if _, ok := errors.AsType[usageError](err); ok {
		return failed{exit: exitUsage, code: "usage", message: masked(err.Error()), hint: "Try: " + cmd.CommandPath() + " --help"}
	}
	if found, ok := errors.AsType[foundError](err); ok {
		return failed{exit: exitFound, code: "found", message: found.message}
	}
	f, isFault := errors.AsType[*fault.Error](err)
	ce, isAnswer := errors.AsType[*client.Error](err)
	if isFault && isAnswer {
		// The outer one knows more: what was being done, and what came of it.
		_, inside := errors.AsType[*client.Error](f.Unwrap())
		isFault, isAnswer = inside, !inside
	}
	switch {
	case isAnswer:
		return c.refused(ce)
	case isFault:
		out := failed{exit: exitFailed, code: f.Code, message: f.Message, hint: f.Hint, fields: f.Fields}
		switch f.Kind {
		case fault.Unauthenticated, fault.Denied:
			out.exit = exitDenied
		case fault.NotFound:
			out.exit = exitNotFound
		case fault.Unavailable, fault.Limited:
			out.exit = exitUnavailable
		}
		if c.debug {
			out.message = f.Error()
		}
		return out
	}
	return failed{exit: exitFailed, code: "internal", message: err.Error(), hint: "Try it again. If it stays, --debug says more."}
}

// refused is what a server answered.
func (c *command) refused(e *client.Error) failed {
	out := failed{exit: exitFailed, code: e.Code, message: e.Message, hint: e.Hint, fields: e.Fields}
	switch {
	case e.Status == 401, e.Status == 403:
		out.exit = exitDenied
	case e.Status == 404:
		out.exit = exitNotFound
		if where := listOf(e.Message); where != "" {
			out.hint = "See: " + where
		}
	case e.Status == 429, e.Status >= 500 && e.Status != 500, e.Code == "server_unreachable":
		out.exit = exitUnavailable
	}
	if text := e.Fields["problems"]; strings.Contains(text, "\n") {
		out.hint = text
	}
	if m := badField.FindStringSubmatch(e.Hint); m != nil {
		out.message, out.hint = "The "+strings.ReplaceAll(m[1], "_", " ")+" is not taken: "+m[2], ""
	}
	out.page = first(e.Fields["url"], e.Fields["connect_url"])
	if e.Status == 401 {
		out.hint = c.loginAt(c.serverURL())
		if c.env[envAPIKey] != "" {
			out.hint = "AMBIT_API_KEY holds no key that this server knows. Take it away to use your login: unset AMBIT_API_KEY"
		}
	}
	return out
}

// badField reads the API's complaint about one field, such as
// "body.ceiling.effects[0]: one of read, write.".
var badField = regexp.MustCompile(`^(?:query|body|path)(?:\.\w+(?:\[\d+\])?)*\.(\w+)(?:\[\d+\])?: (.+)$`)

// listOf is the command that shows what there is of a kind that was not found.
func listOf(message string) string {
	noun, ok := strings.CutPrefix(strings.TrimSuffix(message, "."), "No such ")
	if !ok {
		return ""
	}
	return map[string]string{
		"agent": "ambit agent list", "user": "ambit user list", "organization": "ambit org list", "provider": "ambit provider list", "template": "ambit provider template",
		"connection": "ambit connection list", "session": "ambit session list", "secret": "ambit secret list", "object": "ambit secret list", "API key": "ambit apikey list",
	}[noun]
}

// reportJSON prints an error as the API does: with the further facts that it has.
func (c *command) reportJSON(f failed) {
	out := map[string]string{}
	maps.Copy(out, f.fields)
	maps.Copy(out, map[string]string{"code": f.code, "message": f.message, "hint": f.hint})
	enc := json.NewEncoder(c.stderr)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{"error": out})
}
