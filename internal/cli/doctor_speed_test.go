package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metricsOf is what a server would say that made so many calls, all of whose steps
// took as long as the bucket that is named, and more.
func metricsOf(t *testing.T, calls int, took map[string]string, more string) measured {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, "# TYPE ambit_call_step_seconds histogram")
	for _, step := range []string{"session", "policy", "intent", "credential", "upstream", "redact", "outcome"} {
		at := took[step]
		if at == "" {
			at = "0.0001"
		}
		seen := 0
		for _, edge := range []string{"0.0001", "0.01", "0.1", "1", "5", "20"} {
			if edge == at {
				seen = calls
			}
			fmt.Fprintf(&b, "ambit_call_step_seconds_bucket{step=%q,le=%q} %d\n", step, edge, seen)
		}
		fmt.Fprintf(&b, "ambit_call_step_seconds_bucket{step=%q,le=\"+Inf\"} %d\nambit_call_step_seconds_sum{step=%q} 1\nambit_call_step_seconds_count{step=%q} %d\n", step, calls, step, step, calls)
	}
	fmt.Fprintf(&b, "# TYPE ambit_calls_total counter\nambit_calls_total{code=\"ok\",effect=\"read\"} %d\n%s", calls, more)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// Issue 3, item 5: the doctor explains what is slow or wrong. Each row is one
// such thing; what is well brings none of them.
func TestDoctorExplainsWhatIsSlow(t *testing.T) {
	t.Parallel()
	well := judgeSpeed(metricsOf(t, 1000, nil, ""))
	if len(well) != 1 || well[0].Level != fine || !strings.Contains(well[0].Says, "400µs") {
		t.Errorf("a server that is well: %+v", well)
	}
	for _, row := range []struct {
		level, says string
		took        map[string]string
		more        string
	}{
		{warning, "over 100ms in the step intent", map[string]string{"intent": "0.1"}, ""},
		{warning, "in the step session", map[string]string{"session": "0.1"}, ""},
		{note, "over 20s in the step upstream", map[string]string{"upstream": "20"}, ""},
		{note, "in the step credential", map[string]string{"credential": "5"}, ""},
		{problem, "1 of 1001 calls ended with audit_unavailable", nil, "ambit_calls_total{code=\"audit_unavailable\",effect=\"read\"} 1\n"},
		{warning, "calls ended with overloaded", nil, "ambit_calls_total{code=\"overloaded\",effect=\"none\"} 50\n"},
		{warning, "900 of 1000 files and sockets", nil, "# TYPE process_open_fds gauge\nprocess_open_fds 900\n# TYPE process_max_fds gauge\nprocess_max_fds 1000\n"},
		{warning, "5000 outcomes wait", nil, "# TYPE ambit_audit_outcomes_waiting gauge\nambit_audit_outcomes_waiting 5000\n"},
		{warning, "waits 10ms for a connection", nil, "# TYPE ambit_database_wait_seconds_total counter\nambit_database_wait_seconds_total 20\n# TYPE ambit_database_statements_total counter\nambit_database_statements_total 2000\n"},
	} {
		list := judgeSpeed(metricsOf(t, 1000, row.took, row.more))
		if len(list) != 1 || list[0].Level != row.level || !strings.Contains(list[0].Says, row.says) || list[0].Why == "" || list[0].Mend == "" {
			t.Errorf("want one %s that says %q and what mends it, got %+v", row.level, row.says, list)
		}
	}
	// A bug: from 32 calls on, the slowest one was told as one in a hundred.
	if list := judgeSpeed(metricsOf(t, 999, map[string]string{"intent": "0.1"}, "")); len(list) != 1 || list[0].Level != fine {
		t.Errorf("too few calls to tell the slowest: %+v", list)
	}
	if list := judgeSpeed(measured{}); len(list) != 1 || list[0].Level != note {
		t.Errorf("a server without calls: %+v", list)
	}
}
