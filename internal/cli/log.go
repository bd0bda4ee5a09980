package cli

import (
	"log"
	"log/slog"
	"strings"
)

// borrowLog takes what libraries write to the standard log, until it is given
// back. net/http puts what an upstream sent there, which may be the credential
// that was sent to it: so only the words before the first quotation are kept.
func borrowLog(l *slog.Logger) (giveBack func()) {
	out, flags := log.Writer(), log.Flags()
	log.SetOutput(libraries{l})
	log.SetFlags(0)
	return func() {
		log.SetOutput(out)
		log.SetFlags(flags)
	}
}

type libraries struct{ log *slog.Logger }

func (w libraries) Write(p []byte) (int, error) {
	text, _, quotes := strings.Cut(strings.TrimSpace(string(p)), `"`)
	if quotes {
		text = strings.TrimSpace(text) + " …"
	}
	const most = 200
	w.log.Warn("a library says", "message", text[:min(len(text), most)])
	return len(p), nil
}
