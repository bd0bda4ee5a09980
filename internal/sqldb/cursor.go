package sqldb

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Cursor names a row of a list that is ordered by time and id, for the page
// that follows it. It is no secret and grants nothing.
func Cursor(micros int64, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(micros, 10) + " " + id))
}

// ParseCursor is the inverse of Cursor.
func ParseCursor(c string) (micros int64, id string, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(c)
	at, last, ok := strings.Cut(string(raw), " ")
	micros, perr := strconv.ParseInt(at, 10, 64)
	if err != nil || perr != nil || !ok {
		return 0, "", fault.New(fault.Invalid, "invalid_cursor", "That is not a page cursor of this list.").
			WithHint("Use the cursor that the page before gave, or start without one.")
	}
	return micros, last, nil
}
