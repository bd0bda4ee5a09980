package strictjson

import "github.com/go-json-experiment/json"

// unmarshalStrict matches names by exact case and refuses unknown ones.
func unmarshalStrict(doc []byte, v any) error {
	return json.Unmarshal(doc, v, json.RejectUnknownMembers(true))
}
