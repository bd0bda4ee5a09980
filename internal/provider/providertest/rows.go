package providertest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/url"
	"strings"
	"time"
)

// answer is a well-formed HTTP/1.1 answer.
func answer(status int, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
}

const isJSON = "Content-Type: application/json\r\n"

// says plays the same bytes each time and leaves the connection open.
func says(text string) func(*Conn) bool {
	return func(c *Conn) bool { return c.Say(text) }
}

// ends plays the same bytes each time and closes.
func ends(text string) func(*Conn) bool {
	return func(c *Conn) bool { c.Say(text); return false }
}

// resets plays the same bytes and resets.
func resets(text string) func(*Conn) bool {
	return func(c *Conn) bool { c.Say(text); c.Wait(20 * time.Millisecond); c.Reset(); return false }
}

// drips writes a beginning, then the same part again and again with pauses.
func drips(begin, part string, pause time.Duration) func(*Conn) bool {
	return func(c *Conn) bool {
		for ok := c.Say(begin); ok && c.Wait(pause); ok = c.Say(part) {
		}
		return false
	}
}

// floods writes a beginning, then the same part without end.
func floods(begin, part string) func(*Conn) bool {
	return func(c *Conn) bool {
		for ok := c.Say(begin); ok; ok = c.Say(part) {
		}
		return false
	}
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// zippedZeros is so many MiB of zeros in one gzip member (RFC 1952). One MiB is
// compressed, and its blocks repeated: under the race detector a compressor would
// take minutes for a gigabyte.
func zippedZeros(n int) string {
	zeros := make([]byte, mib)
	var part, out bytes.Buffer
	z, _ := flate.NewWriter(&part, flate.BestCompression)
	_, _ = z.Write(zeros)
	_ = z.Flush() // ends at a whole byte, and what follows needs nothing of before
	out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	var sum uint32
	for range n {
		out.Write(part.Bytes())
		sum = crc32.Update(sum, crc32.IEEETable, zeros)
	}
	out.Write([]byte{1, 0, 0, 0xff, 0xff}) // the last block, of nothing
	out.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, sum), uint32(n*mib)))
	return out.String()
}

func gigabyte() string { return zippedZeros(1 << 10) }

func deflated(text string) string {
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.BestSpeed)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

const (
	unknown = "outcome_unknown"
	refused = "upstream_answer_refused"
	mib     = 1 << 20
)

// Broken are connections that break, stall or flood.
func Broken() []Row {
	part := strings.Repeat("0123456789abcdef", 4096)
	lost := func(name string, play func(*Conn) bool) Row {
		return Row{Name: name, Play: play, Code: unknown, Outcome: "unknown"}
	}
	slow := func(name string, play func(*Conn) bool) Row {
		return Row{Name: name, Play: play, Code: unknown, Outcome: "unknown", Slow: true}
	}
	no := func(name string, play func(*Conn) bool) Row {
		return Row{Name: name, Play: play, Code: refused, Refused: 200, Outcome: "ok"}
	}
	large := func(name string, play func(*Conn) bool) Row {
		return Row{Name: name, Play: play, Code: refused, Refused: 200, Outcome: "ok", Large: true}
	}
	return []Row{
		lost("closes instead of an answer", ends("")),
		lost("resets instead of an answer", resets("")),
		lost("resets in the status line", resets("HTTP/1.1 20")),
		lost("resets in the headers", resets("HTTP/1.1 200 OK\r\nContent-Le")),
		lost("resets in the body", resets("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"half\":")),
		lost("resets in a chunk", resets("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")),
		lost("closes in the headers", ends("HTTP/1.1 200 OK\r\nContent-Le")),
		lost("closes in the body", ends("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"half\":")),
		lost("closes in a chunk", ends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")),
		lost("closes without the last chunk", ends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")),
		slow("never answers", func(c *Conn) bool { c.Wait(time.Hour); return false }),
		slow("headers byte by byte", drips("HTTP/1.1 200 OK\r\nX-Slow: ", "x", 20*time.Millisecond)),
		slow("a status line byte by byte", drips("HTTP/1.1 200 ", "x", 20*time.Millisecond)),
		slow("a body byte by byte", drips("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", " ", 20*time.Millisecond)),
		slow("chunks byte by byte", drips("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 20*time.Millisecond)),
		slow("stops in the body", func(c *Conn) bool {
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
			c.Wait(time.Hour)
			return false
		}),
		large("a gigabyte with its length", floods("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", part)),
		large("a gigabyte in chunks", floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10000\r\n"+part+"\r\n")),
		large("a gigabyte until it closes", floods("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", part)),
		no("claims exabytes", ends("HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\nsmall")),
		lost("claims more than a number holds", ends("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nsmall")),
		large("a bomb", says(answer(200, "Content-Encoding: gzip\r\n", gigabyte()))),
		large("a bomb in a bomb", says(answer(200, "Content-Encoding: gzip, gzip\r\n", zipped(gigabyte())))),
		large("a bomb without end", floods("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", zippedZeros(64))),
		no("deflate", says(answer(200, "Content-Encoding: deflate\r\n", deflated("{}")))),
		no("brotli", says(answer(200, "Content-Encoding: br\r\n", "\x0b\x01\x80{}\x03"))),
		no("zstd", says(answer(200, "Content-Encoding: zstd\r\n", "\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}"))),
		no("three codings", says(answer(200, "Content-Encoding: gzip\r\nContent-Encoding: identity, gzip\r\nContent-Encoding: gzip\r\n", zipped(zipped(zipped("{}")))))),
		no("gzip that is none", says(answer(200, "Content-Encoding: gzip\r\n", "plain"))),
		no("half of a gzip", says(answer(200, "Content-Encoding: gzip\r\n", zipped(part)[:40]))),
		no("gzip with a wrong sum", says(answer(200, "Content-Encoding: gzip\r\n", func() string {
			z := []byte(zipped(`{"a":1}`))
			z[len(z)-6] ^= 1
			return string(z)
		}()))),
		lost("headers without end", floods("HTTP/1.1 200 OK\r\n", "X-More: "+part[:4000]+"\r\n")),
		lost("one header without end", floods("HTTP/1.1 200 OK\r\nX-Long: ", part)),
		no("a thousand headers", ends("HTTP/1.1 200 OK\r\n"+strings.Repeat("X-Many: 1\r\n", 1000)+"Content-Length: 2\r\n\r\n{}")),
		lost("trailers without end", floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-More\r\n\r\n2\r\n{}\r\n0\r\n", "X-More: "+part[:4000]+"\r\n")),
		lost("a chunk's extension without end", floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=", part)),
		lost("early hints without end", floods("", "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")),
		lost("continue without end", floods("", "HTTP/1.1 100 Continue\r\n\r\n")),
	}
}

// Garbled are answers that HTTP does not know, or that two readers would read in
// two ways.
func Garbled() []Row {
	lost := func(name, text string) Row {
		return Row{Name: name, Play: ends(text), Code: unknown, Outcome: "unknown"}
	}
	fine := func(name, text string) Row {
		return Row{Name: name, Play: says(text), Status: 200, Outcome: "ok", Has: "good"}
	}
	return []Row{
		lost("no HTTP at all", "220 mail.example ESMTP\r\n"),
		lost("a body and nothing else", "<html>It works</html>"),
		lost("a version of the future", "HTTP/7.3 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
		lost("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}"),
		lost("a status that is no number", "HTTP/1.1 two OK\r\nContent-Length: 2\r\n\r\n{}"),
		lost("a header without a colon", "HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\n{}"),
		lost("a header that begins with a blank", "HTTP/1.1 200 OK\r\n X-Fold: 1\r\nContent-Length: 2\r\n\r\n{}"),
		lost("two lengths that differ", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\n{}"),
		lost("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}"),
		lost("a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}"),
		lost("a length in hex", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n{}"),
		lost("an unknown transfer coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\n\r\n{}"),
		lost("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
		lost("a chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"),
		lost("a chunk of a negative size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
		lost("a chunk larger than a number holds", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}"),
		lost("a chunk without its end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}garbage"),
		lost("another protocol that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
		fine("length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"),
		fine("lines that end in LF only", "HTTP/1.1 200 OK\nContent-Length: 4\n\ngood"),
		fine("the first version", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\ngood"),
		{Name: "a blank before the colon", Play: ends("HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\ngood"), Status: 200, Outcome: "ok", Has: "good"},
		fine("no reason", "HTTP/1.1 200\r\nContent-Length: 4\r\n\r\ngood"),
		fine("continue, unasked", "HTTP/1.1 100 Continue\r\n\r\n"+answer(200, "", "good")),
		fine("early hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n", 3)+answer(200, "", "good")),
		fine("a folded header", "HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\nContent-Length: 4\r\n\r\ngood"),
		{Name: "a status of 999", Play: says(answer(999, "", "good")), Status: 999, Outcome: "error", Has: "good"},
		{Name: "a body with a 204", Play: says("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL"), Status: 204, Outcome: "ok"},
		{Name: "a body with a 304", Play: says("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL"), Status: 304, Outcome: "ok"},
		{Name: "more than it said", Play: says(answer(200, "", "good") + "EVIL EVIL EVIL"), Status: 200, Outcome: "ok", Has: "good"},
		{Name: "a second answer behind the first", Play: says(answer(200, "", "good") + answer(200, isJSON, `{"evil":"EVIL"}`)), Status: 200, Outcome: "ok", Has: "good"},
		{Name: "an answer before it was asked", Play: func(c *Conn) bool {
			ok := c.Say(answer(200, "", "good"))
			go func() { c.Wait(5 * time.Millisecond); c.Say(answer(200, isJSON, `{"evil":"EVIL"}`)) }()
			return ok
		}, Status: 200, Outcome: "ok", Has: "good"},
	}
}

// Contents are well-formed answers with hostile or wrong content.
func Contents() []Row {
	ok := func(name, header, body, has string) Row {
		return Row{Name: name, Play: says(answer(200, header, body)), Status: 200, Outcome: "ok", Has: has}
	}
	large := func(name, header, body, has string) Row {
		r := ok(name, header, body, has)
		r.Large = true
		return r
	}
	status := func(name string, code int, header, body, has string) Row {
		r := Row{Name: name, Play: says(answer(code, header, body)), Status: code, Outcome: "error", Has: has}
		if code < 400 {
			r.Outcome = "ok"
		}
		return r
	}
	rows := []Row{
		ok("HTML that says it is JSON", isJSON, "<html><script>alert(1)</script>", "<script>"),
		ok("HTML", "Content-Type: text/html\r\n", "<html><script>alert(1)</script>", "<script>"),
		ok("JSON of another shape", isJSON, `[[["good"]]]`, "good"),
		ok("JSON with a name twice", isJSON, `{"a":1,"a":"good"}`, "good"),
		ok("JSON that is not UTF-8", isJSON, "{\"a\":\"\xff\xfegood\"}", ""),
		ok("NaN", isJSON, `{"good":NaN,"b":Infinity}`, "NaN"),
		large("a hundred thousand lists in each other", isJSON, strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000), ""),
		large("half a hundred thousand lists", isJSON, strings.Repeat("[", 100_000), ""),
		large("a number of a million digits", isJSON, `{"good":`+strings.Repeat("9", mib)+"}", ""),
		ok("half of a surrogate", isJSON, `{"good":"\ud800"}`, ""),
		ok("a mark of byte order", isJSON, "\xef\xbb\xbf"+`{"good":1}`, "good"),
		ok("zero bytes", isJSON, "{\"good\":\"\x00\"}\x00\x00", ""),
		ok("no body but JSON", isJSON, "", ""),
		large("blanks without end", isJSON, strings.Repeat(" ", 9*mib)+"{}", ""),
		large("one line of nine MiB", "Content-Type: text/plain\r\n", strings.Repeat("good", 9*mib/4), "good"),
		large("escapes of nine MiB", isJSON, `{"a":"`+strings.Repeat(`\u0041`, 9*mib/6)+`"}`, ""),
		large("names of nine MiB", isJSON, func() string {
			var b strings.Builder
			b.WriteByte('{')
			for i := range 700_000 {
				fmt.Fprintf(&b, `"%x":0,`, i)
			}
			b.WriteString(`"good":1}`)
			return b.String()
		}(), ""),
		ok("a type without an end", "Content-Type: "+strings.Repeat("a/b;", 10_000)+"\r\n", "good", "good"),
		ok("two types", "Content-Type: text/html\r\nContent-Type: application/json\r\n", `{"good":1}`, "good"),
		ok("a page that goes elsewhere", "Refresh: 0; url=https://evil.example/\r\nContent-Type: text/html\r\n", "good", "good"),
		ok("cookies", "Set-Cookie: id=EVIL; Path=/\r\nSet-Cookie2: id=EVIL\r\n", "good", "good"),
		ok("a server that wants to be kept", "Keep-Alive: timeout=999999\r\nAlt-Svc: h3=\"evil.example:443\"; ma=999999\r\n", "good", "good"),
		{Name: "gzip behind which more comes", Play: says(answer(200, "Content-Encoding: gzip\r\n", zipped("good")+zipped(" and more"))), Status: 200, Outcome: "ok", Has: "good"},

		status("a refusal of the credential", 401, "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n", "go away", ""),
		status("a ban", 403, isJSON, `{"error":"good bye"}`, "good"),
		status("a limit in seconds", 429, "Retry-After: 7\r\n", "good", "good"),
		status("a limit until a date", 429, "Retry-After: Fri, 31 Dec 2038 23:59:59 GMT\r\n", "good", "good"),
		status("a limit in the past", 429, "Retry-After: -5\r\n", "good", "good"),
		status("a limit for ever", 429, "Retry-After: 99999999999999999999\r\n", "good", "good"),
		status("a limit of nonsense", 429, "Retry-After: soon\r\nRetry-After: 1e9\r\n", "good", "good"),
		status("an error", 500, isJSON, `{"good":false}`, "good"),
		status("a proxy's page", 502, "Content-Type: text/html\r\n", "<html>good", "good"),
		status("a server that rests", 503, "Retry-After: 120\r\n", "good", "good"),
		status("an error without a body", 504, "", "", ""),
		status("an error of a megabyte", 500, "Content-Type: text/plain\r\n", strings.Repeat("good", mib/4), "good"),
		status("something gone", 410, "", "good", "good"),
		status("payment", 402, "", "good", "good"),
	}
	for _, code := range []int{300, 301, 302, 303, 305, 307, 308} {
		rows = append(rows,
			Row{Name: fmt.Sprintf("a redirect %d to another host", code), Status: code, Outcome: "ok", Play: func(c *Conn) bool {
				return c.Say(answer(code, "Location: http://"+c.server.lureAddr+"/?"+url.QueryEscape(c.Auth)+"\r\n", "moved"))
			}},
			Row{Name: fmt.Sprintf("a redirect %d of what was sent", code), Post: true, Status: code, Outcome: "ok", Play: func(c *Conn) bool {
				return c.Say(answer(code, "Location: //"+c.server.lureAddr+"/\r\n", "moved"))
			}})
	}
	for name, to := range map[string]string{"to itself": "", "to the metadata service": "http://169.254.169.254/latest/meta-data/", "to a file": "file:///etc/passwd",
		"to a script": "javascript:alert(1)", "to no URL": "http://[::1", "with a name": "http://user:pass@evil.example/"} {
		rows = append(rows, status("a redirect "+name, 302, "Location: "+to+"\r\n", "moved", ""))
	}
	return rows
}

// Echoes give the credential back, each in its own place or form.
func Echoes() []Row {
	echo := func(name string, write func(auth string) string) Row {
		return Row{Name: "an echo " + name, Status: 200, Outcome: "ok", Play: func(c *Conn) bool { return c.Say(write(c.Auth)) }}
	}
	body := func(form func(string) string) func(string) string {
		return func(auth string) string { return answer(200, "Content-Type: text/plain\r\n", "a "+form(auth)+" b") }
	}
	doc := func(form func(string) string) func(string) string {
		return func(auth string) string { return answer(200, isJSON, `{"a":`+form(auth)+`}`) }
	}
	chunked := func(parts ...string) string {
		var b strings.Builder
		b.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n")
		for _, p := range parts {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
		}
		return b.String() + "0\r\n"
	}
	rows := []Row{
		echo("in the body", body(func(a string) string { return a })),
		echo("in a JSON value", doc(func(a string) string { return `"` + a + `"` })),
		echo("in a JSON name", doc(func(a string) string { return `{"` + a + `":1}` })),
		echo("in base64", body(func(a string) string { return base64.StdEncoding.EncodeToString([]byte(a)) })),
		echo("in base64 of more", body(func(a string) string { return base64.RawURLEncoding.EncodeToString([]byte("user:" + a)) })),
		echo("in hex", body(func(a string) string { return hex.EncodeToString([]byte(a)) })),
		echo("in a query", body(func(a string) string { return "?k=" + url.QueryEscape(a) })),
		echo("in escapes", doc(func(a string) string {
			var b strings.Builder
			for _, r := range a {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
			return `"` + b.String() + `"`
		})),
		echo("in gzip", func(a string) string { return answer(200, "Content-Encoding: gzip\r\n", zipped("a "+a)) }),
		echo("in two chunks", func(a string) string { return chunked(a[:len(a)/2], a[len(a)/2:]) + "\r\n" }),
		echo("byte by byte", func(a string) string { return chunked(strings.Split(a, "")...) + "\r\n" }),
		echo("in a trailer", func(a string) string { return chunked("{}") + "X-Late: " + a + "\r\n\r\n" }),
		echo("in the reason", func(a string) string { return "HTTP/1.1 200 " + a + "\r\nContent-Length: 2\r\n\r\n{}" }),
		echo("in headers", func(a string) string {
			return answer(200, "X-Auth: "+a+"\r\nETag: \""+a+"\"\r\nX-Request-Id: "+a+"\r\nLink: <?k="+a+">; rel=next\r\nX-RateLimit-"+a+": 1\r\nRetry-After: "+a+"\r\n", "{}")
		}),
		echo("in a cookie", func(a string) string { return answer(200, "Set-Cookie: auth="+a+"\r\n", "{}") }),
		echo("in the type", func(a string) string { return answer(200, "Content-Type: text/"+a+"\r\n", "{}") }),
		echo("in JSON that is none", func(a string) string { return answer(200, isJSON, `{"a":"`+a) }),
		echo("in HTML", func(a string) string { return answer(200, "Content-Type: text/html\r\n", "<p>"+a+"</p>") }),
		echo("backwards and forwards, a thousand times", body(func(a string) string { return strings.Repeat(a, 1000) })),
	}
	lost := func(name string, write func(auth string) string) Row {
		return Row{Name: "a broken echo " + name, Code: unknown, Outcome: "unknown", Play: func(c *Conn) bool { c.Say(write(c.Auth)); return false }}
	}
	return append(rows,
		lost("in a header that is none", func(a string) string { return "HTTP/1.1 200 OK\r\n" + a + "\r\n\r\n" }),
		lost("in the status line", func(a string) string { return "HTTP/1.1 " + a + "\r\n\r\n" }),
		lost("instead of HTTP", func(a string) string { return a + "\r\n" }),
		lost("in the length", func(a string) string { return "HTTP/1.1 200 OK\r\nContent-Length: " + a + "\r\n\r\n" }),
		lost("in the transfer coding", func(a string) string { return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + a + "\r\n\r\n" }),
		lost("in a chunk's size", func(a string) string { return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + a + "\r\n" }),
		lost("in half a body", func(a string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + a }),
		Row{Name: "a refusal with an echo", Status: 401, Outcome: "error", Play: func(c *Conn) bool {
			return c.Say(answer(401, "WWW-Authenticate: Bearer error_description=\""+c.Auth+"\"\r\n", "no such key: "+c.Auth))
		}},
		Row{Name: "an error with an echo", Status: 500, Outcome: "error", Play: func(c *Conn) bool { return c.Say(answer(500, "", "cannot read "+c.Auth)) }},
	)
}

// Unreachable are listeners that are broken as a whole.
func Unreachable() []Row {
	never := func(name string, at Place) Row {
		return Row{Name: name, At: at, Code: "upstream_unreachable", Outcome: "error"}
	}
	return []Row{
		never("nobody listens", Refused),
		{Name: "accepts and says nothing", At: Mute, Code: unknown, Outcome: "unknown", Slow: true},
		{Name: "resets what it accepted", At: Hangup, Code: unknown, Outcome: "unknown"},
		{Name: "says nothing to a TLS hello", At: MuteTLS, Code: "upstream_timeout", Outcome: "error", Slow: true},
		never("breaks off the handshake", HalfTLS),
		never("speaks HTTP where TLS should be", NoTLS),
		never("TLS of the past", OldTLS),
		never("a certificate for another name", WrongTLS),
		never("a certificate that has expired", PastTLS),
		never("a certificate that nobody vouches for", OwnTLS),
		never("a name that does not exist", NoName),
	}
}
