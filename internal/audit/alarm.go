package audit

import (
	"context"
	"time"
)

// maxAlarms is how many may wait to be written.
const maxAlarms = 256

// Alarm puts on record what an operator must hear of and what was noticed in the
// middle of something else: a sealed value that does not open, a root key that is
// refused, checkpoints that cannot be written. It does not wait, so it may be
// called from anywhere, also inside a transaction. The same alarm about the same
// object counts once a minute, so that nobody can fill the log with one. Without a
// code it says that something is well again.
func (l *Log) Alarm(e Entry) {
	if e.Code == "" {
		l.log.Warn("an alarm is over", "action", e.Action, "object", e.Object)
	} else {
		l.log.Error("alarm", "action", e.Action, "object", e.Object, "code", e.Code)
	}
	if first, _ := l.alarmRate.Allow(e.Action + " " + e.Object + " " + e.Code); !first || l.sealed {
		return
	}
	select {
	case l.alarms <- l.complete(e):
	default:
		l.log.Error("an alarm could not be recorded: too many wait", "action", e.Action, "object", e.Object)
	}
}

// recordAlarms writes alarms until Stop. While the log cannot be written they wait.
func (l *Log) recordAlarms() {
	defer close(l.alarmed)
	for {
		select {
		case e := <-l.alarms:
			for !l.recordAlarm(e) {
				select {
				case <-l.stop:
					l.log.Error("an alarm could not be recorded before the log stopped", "action", e.Action, "object", e.Object)
					return
				case <-time.After(time.Second):
				}
			}
		case <-l.stop:
			for len(l.alarms) > 0 {
				if !l.recordAlarm(<-l.alarms) {
					return
				}
			}
			return
		}
	}
}

func (l *Log) recordAlarm(e Entry) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := l.Record(ctx, e)
	if err != nil {
		l.log.Error("an alarm cannot be recorded yet", "action", e.Action, "object", e.Object, "error", err)
	}
	return err == nil
}
