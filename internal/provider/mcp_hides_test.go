package provider

import "testing"

// A1: what agents read of a tool, whoever agrees to it sees; pictures are seen.
func TestWordsOfToolsHideNothing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"lists things": false, "⚠️ deletes": false, "👩\u200d💻 works": false, "❤️\u200d🔥": false, "a b\u3000c": false,
		"a\ufe0f": true, "⚠\ufe0f\ufe0f": true, "⚠\ufe0e": true, "x\u200dy": true, "👩\u200dx": true, "👩\u200d": true, "a\U000e0101": true, "\U000e0041": true, "\u202eabc": true,
	} {
		if hides(text) != want {
			t.Errorf("%+q hides something: %v", text, !want)
		}
	}
}
