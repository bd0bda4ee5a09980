package postgres

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// errEnough says that a statement that only reads has more rows than are kept.
var errEnough = errors.New("enough rows")

// collect reads a result. Rows beyond the limits are not kept; a statement that
// changes something runs to its end all the same.
func collect(from *pgconn.ResultReader, st Statement) (Result, error) {
	var out Result
	for _, f := range from.FieldDescriptions() {
		out.Columns = append(out.Columns, Column{Name: f.Name, Type: typeName(f.DataTypeOID)})
	}
	left := st.Bytes
	for from.NextRow() {
		row := out.row(from)
		if left -= len(row) + 1; left < 0 || len(out.Rows) >= st.Rows {
			out.Truncated, left = true, -1
			if st.ReadOnly {
				return out, errEnough
			}
			continue
		}
		out.Rows = append(out.Rows, row)
	}
	tag, err := from.Close()
	out.Command, out.Affected = tag.String(), tag.RowsAffected()
	return out, err
}

func (r *Result) row(from *pgconn.ResultReader) []byte {
	fields := from.FieldDescriptions()
	out := []byte{'['}
	for i, v := range from.Values() {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendValue(out, fields[i].DataTypeOID, v)
	}
	return append(out, ']')
}

const exact = 1 << 53 // beyond which readers of JSON round integers

// appendValue writes a value, which the server sends as text: as the number,
// boolean or document that it is, where JSON has one, and else as that text.
func appendValue(out []byte, oid uint32, v []byte) []byte {
	switch oid {
	case pgtype.BoolOID:
		if v != nil {
			return strconv.AppendBool(out, string(v) == "t")
		}
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil && -exact <= n && n <= exact {
			return strconv.AppendInt(out, n, 10)
		}
	case pgtype.Float4OID, pgtype.Float8OID, pgtype.JSONOID, pgtype.JSONBOID:
		if doc := jsontext.Value(bytes.Clone(v)); v != nil && doc.Compact() == nil { // NaN and Infinity are none
			return append(out, doc...)
		}
	}
	if v == nil {
		return append(out, "null"...)
	}
	if !utf8.Valid(v) {
		v = bytes.ToValidUTF8(v, []byte("\uFFFD"))
	}
	quoted, err := jsontext.AppendQuote(out, v)
	if err != nil {
		return append(out, "null"...)
	}
	return quoted
}

// typeName names the types that the server itself defines; "other" is any other.
func typeName(oid uint32) string {
	switch oid {
	case pgtype.BoolOID:
		return "boolean"
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return "integer"
	case pgtype.Float4OID, pgtype.Float8OID:
		return "float"
	case pgtype.NumericOID:
		return "numeric"
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID, pgtype.UnknownOID:
		return "text"
	case pgtype.JSONOID, pgtype.JSONBOID:
		return "json"
	case pgtype.UUIDOID:
		return "uuid"
	case pgtype.DateOID:
		return "date"
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		return "timestamp"
	case pgtype.ByteaOID:
		return "bytea"
	}
	return "other"
}
