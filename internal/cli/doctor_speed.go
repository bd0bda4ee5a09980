package cli

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ambit-dev/ambit/internal/app"
)

// checkSpeed says what slows calls down and why they are refused, from the
// metrics of the server that runs on the data folder.
func checkSpeed(ctx context.Context, p *patient) []finding {
	if p.about == nil || p.sealed() {
		return nil
	}
	text, err := askConsole(ctx, filepath.Join(p.cfg.DataDir, app.ConsoleSocket), http.MethodGet, "/metrics", nil)
	if err != nil {
		return []finding{{Level: warning, Says: "the server's metrics cannot be read", Why: err.Error()}}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return []finding{{Level: warning, Says: "the server's metrics cannot be understood", Why: err.Error()}}
	}
	return judgeSpeed(measured(families))
}

// measured is what the metrics say since the server started.
type measured map[string]*dto.MetricFamily

// slow is a step of the spine, how long is too long for one call in a hundred,
// and what mends it.
type slow struct {
	step      string
	limit     time.Duration
	why, mend string
}

func slowSteps() []slow {
	return []slow{
		{"session", 25 * time.Millisecond, "Every call reads its session from the database.", "Look at the database's load and at other users of its disk; ambit profile cpu shows ours."},
		{"policy", 50 * time.Millisecond, "Large requests are built and their approvals looked up here.", "Take a profile while it is slow: ambit profile cpu --seconds 10"},
		{"intent", 50 * time.Millisecond, "No call is sent before its intent is on disk.", "Put the database on a disk that syncs faster, and leave that disk to it."},
		{"credential", 2 * time.Second, "Tokens were refreshed at providers that answer slowly.", "See which: ambit audit list --action 'credential.*'"},
		{"upstream", 10 * time.Second, "Providers take long to answer; Ambit adds nothing to it.", "See which calls: ambit audit list --action tool.call"},
		{"redact", 250 * time.Millisecond, "Providers send large answers, which are searched for the credential.", "Ask for less at a time: page sizes, fields."},
	}
}

// minCalls is how many calls it takes for a share to mean something.
const minCalls = 20

// minTail is how many calls it takes to speak of one in a hundred: of fewer, the
// slowest few, such as the first after a start, would pass for it.
const minTail = 1000

func judgeSpeed(m measured) []finding {
	var list []finding
	for _, s := range slowSteps() {
		h := m.histogram("ambit_call_step_seconds", "step", s.step)
		if h.GetSampleCount() < minTail {
			continue
		}
		if p99 := quantile(0.99, h); p99 > s.limit.Seconds() {
			level := warning
			if s.step == "upstream" || s.step == "credential" {
				level = note // the provider's time, not ours
			}
			list = append(list, finding{Level: level, Says: fmt.Sprintf("one call in a hundred spends over %s in the step %s", span(p99), s.step), Why: s.why, Mend: s.mend})
		}
	}
	list = append(list, m.refusals()...)
	list = append(list, m.shortages()...)
	if len(list) > 0 {
		return list
	}
	calls := m.histogram("ambit_call_step_seconds", "step", "outcome").GetSampleCount()
	if calls < minCalls {
		return []finding{{Level: note, Says: fmt.Sprintf("only %s so far, which say little", count(int64(calls), "call", "calls"))}}
	}
	var own float64
	for _, step := range []string{"session", "policy", "intent", "redact"} {
		own += quantile(0.5, m.histogram("ambit_call_step_seconds", "step", step))
	}
	return []finding{{Level: fine, Says: fmt.Sprintf("our own steps take about %s of a call, by the middle of %d", span(own), calls)}}
}

// refusals tells of calls that failed for a reason that an operator can mend.
func (m measured) refusals() (list []finding) {
	total := m.sum("ambit_calls_total", "", "")
	for _, r := range []struct {
		code, level, why, mend string
	}{
		{"audit_unavailable", problem, "The audit could not be written, so calls were not made.", "Look at the database and its disk: free space, errors, load."},
		{"clock_skew", problem, "A node whose clock is off makes no calls.", "Set the clock, and keep it set: timedatectl set-ntp true"},
		{"overloaded", warning, "More calls came at once than the server takes.", "Add a node on PostgreSQL, or lower what agents may ask: AMBIT_CALL_RATE"},
		{"rate_limited", note, "Agents call more often than AMBIT_CALL_RATE allows.", "Raise it if the agents are right."},
		{"outcome_unknown", note, "Requests were sent and not answered; nobody knows whether they took effect.", "See which: ambit audit list --action tool.call"},
	} {
		n := m.sum("ambit_calls_total", "code", r.code)
		if n == 0 || total < minCalls || r.level != problem && n/total < 0.01 {
			continue
		}
		list = append(list, finding{Level: r.level, Says: fmt.Sprintf("%d of %d calls ended with %s since the server started", int64(n), int64(total), r.code), Why: r.why, Mend: r.mend})
	}
	return list
}

// shortages tells of what is about to run out.
func (m measured) shortages() (list []finding) {
	if open, most := m.sum("process_open_fds", "", ""), m.sum("process_max_fds", "", ""); most > 0 && open > 0.8*most {
		list = append(list, finding{Level: warning, Says: fmt.Sprintf("the server has %d of %d files and sockets open", int64(open), int64(most)),
			Why: "At the limit it takes no more connections.", Mend: "Raise it: LimitNOFILE=65536 in the unit, or ulimit -n 65536"})
	}
	if waiting := m.sum("ambit_audit_outcomes_waiting", "", ""); waiting > 1000 {
		list = append(list, finding{Level: warning, Says: fmt.Sprintf("%d outcomes wait to be written", int64(waiting)), Why: "Calls are refused at 9000.", Mend: "Look at the database and its disk."})
	}
	waits, statements := m.sum("ambit_database_wait_seconds_total", "", ""), m.sum("ambit_database_statements_total", "", "")
	if statements > 1000 && waits/statements > 0.005 {
		list = append(list, finding{Level: warning, Says: fmt.Sprintf("a statement waits %s for a connection to the database, on average", span(waits/statements)),
			Why: "All connections are in use.", Mend: "Look for what holds them: long statements, a slow disk, or a database with too few processors."})
	}
	return list
}

// sum adds the values of a counter or gauge over the series with this label.
func (m measured) sum(name, label, value string) (total float64) {
	for _, s := range m[name].GetMetric() {
		if label == "" || hasLabel(s, label, value) {
			total += s.GetCounter().GetValue() + s.GetGauge().GetValue() + s.GetUntyped().GetValue()
		}
	}
	return total
}

func (m measured) histogram(name, label, value string) *dto.Histogram {
	for _, s := range m[name].GetMetric() {
		if hasLabel(s, label, value) {
			return s.GetHistogram()
		}
	}
	return nil
}

func hasLabel(s *dto.Metric, name, value string) bool {
	for _, l := range s.GetLabel() {
		if l.GetName() == name && l.GetValue() == value {
			return true
		}
	}
	return false
}

// quantile is the upper edge of the bucket that holds the q-quantile, in seconds.
func quantile(q float64, h *dto.Histogram) float64 {
	rank := q * float64(h.GetSampleCount())
	last := 0.0
	for _, b := range h.GetBucket() {
		if !math.IsInf(b.GetUpperBound(), 1) {
			last = b.GetUpperBound()
		}
		if float64(b.GetCumulativeCount()) >= rank {
			break
		}
	}
	return last
}

// span is a time in seconds as people say it.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
