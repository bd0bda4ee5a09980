package provider

import "testing"

// Issue 6: which part of a mail a field is comes from the record, whatever place in a
// list it has and whatever an agent writes into names.
func TestPartsOfAMail(t *testing.T) {
	t.Parallel()
	s := &Shown{As: "mail", Parts: map[string]string{"to": "body message.to.address", "subject": "body message.subject"}}
	for field, want := range map[string]string{
		"body message.to[0].address": "to", "body message.to[12].address": "to", "body message.subject": "subject",
		"body message.to[0].name": "", "body message.to[x].address": "", "query message.subject": "", "body message.to[": "", "body message.to[].address": "",
	} {
		if got := s.Part(field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	if got := (*Shown)(nil).Part("body a"); got != "" {
		t.Errorf("a call without it has the part %q", got)
	}
}
