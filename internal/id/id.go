// Package id defines the typed, prefixed identifiers of every noun.
//
// An id is a prefix that names the noun, an underscore, and 26 characters of
// lower-case Crockford base32: 48 bits of milliseconds and 80 random bits. Ids
// of one noun therefore sort by creation time, and are never reused. They are
// names, not credentials: possession of an id authorizes nothing.
package id

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Kind is implemented by the markers below; it binds an id type to its prefix.
type Kind interface{ prefix() string }

// ID names one thing of kind K. Its underlying type is string, so ids bind to
// and scan from SQL TEXT columns as they are. The empty ID means "none".
type ID[K Kind] string

type (
	environment  struct{}
	organization struct{}
	user         struct{}
	key          struct{}
	agent        struct{}
	connection   struct{}
	secretObject struct{}
	kek          struct{}
	session      struct{}
	approval     struct{}
	event        struct{}
	client       struct{}
	login        struct{}
	flow         struct{}
	passkey      struct{}
	draft        struct{}
	dataKey      struct{}
	binding      struct{}
	integration  struct{}
	webhook      struct{}
	delivery     struct{}
	ticket       struct{}
	identity     struct{}
)

func (environment) prefix() string  { return "env" }
func (organization) prefix() string { return "org" }
func (user) prefix() string         { return "user" }
func (key) prefix() string          { return "key" }
func (agent) prefix() string        { return "agent" }
func (connection) prefix() string   { return "conn" }
func (secretObject) prefix() string { return "secret" }
func (kek) prefix() string          { return "kek" }
func (session) prefix() string      { return "ses" }
func (approval) prefix() string     { return "apr" }
func (event) prefix() string        { return "evt" }
func (client) prefix() string       { return "client" }
func (login) prefix() string        { return "login" }
func (flow) prefix() string         { return "flow" }
func (passkey) prefix() string      { return "pk" }
func (draft) prefix() string        { return "draft" }
func (dataKey) prefix() string      { return "dek" }
func (binding) prefix() string      { return "bind" }
func (integration) prefix() string  { return "int" }
func (webhook) prefix() string      { return "hook" }
func (delivery) prefix() string     { return "dlv" }
func (ticket) prefix() string       { return "ticket" }
func (identity) prefix() string     { return "idp" }

// The nouns of the product, and the few that serve them: a client is an OAuth
// client registration of an agent, a login is a person's browser or CLI
// sign-in, a flow is one OAuth authorization in progress, a draft is a change
// that a person has still to agree to, a data key is one that an application keeps
// its own data under, a binding says whose root key counts, an integration is a
// provider as an application offers it to its users, a ticket lets one of them
// connect one account, an identity provider is where people of an organization sign in.
type (
	Environment  = ID[environment]
	Organization = ID[organization]
	User         = ID[user]
	Key          = ID[key]
	Agent        = ID[agent]
	Connection   = ID[connection]
	Secret       = ID[secretObject]
	KEK          = ID[kek]
	Session      = ID[session]
	Approval     = ID[approval]
	Event        = ID[event]
	Client       = ID[client]
	Login        = ID[login]
	Flow         = ID[flow]
	Passkey      = ID[passkey]
	Draft        = ID[draft]
	DataKey      = ID[dataKey]
	Binding      = ID[binding]
	Integration  = ID[integration]
	Webhook      = ID[webhook]
	Delivery     = ID[delivery]
	Ticket       = ID[ticket]

	IdentityProvider = ID[identity]
)

const (
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	bodyLen  = 26
)

func fresh[K Kind]() ID[K] {
	var k K
	return ID[K](k.prefix() + "_" + Sortable())
}

// Sortable is the part of an id behind its prefix, of 26 characters: the time in
// milliseconds and 80 random bits, so that what is made later sorts behind and an
// index grows at its end.
func Sortable() string {
	var b [16]byte
	_, _ = rand.Read(b[6:])
	ms := uint64(time.Now().UnixMilli())
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], ms)
	copy(b[:6], t[2:])
	return encode(b)
}

func NewEnvironment() Environment   { return fresh[environment]() }
func NewOrganization() Organization { return fresh[organization]() }
func NewUser() User                 { return fresh[user]() }
func NewKey() Key                   { return fresh[key]() }
func NewAgent() Agent               { return fresh[agent]() }
func NewConnection() Connection     { return fresh[connection]() }
func NewSecret() Secret             { return fresh[secretObject]() }
func NewKEK() KEK                   { return fresh[kek]() }
func NewSession() Session           { return fresh[session]() }
func NewApproval() Approval         { return fresh[approval]() }
func NewEvent() Event               { return fresh[event]() }
func NewClient() Client             { return fresh[client]() }
func NewLogin() Login               { return fresh[login]() }
func NewFlow() Flow                 { return fresh[flow]() }
func NewPasskey() Passkey           { return fresh[passkey]() }
func NewDraft() Draft               { return fresh[draft]() }
func NewDataKey() DataKey           { return fresh[dataKey]() }
func NewBinding() Binding           { return fresh[binding]() }
func NewIntegration() Integration   { return fresh[integration]() }
func NewWebhook() Webhook           { return fresh[webhook]() }
func NewDelivery() Delivery         { return fresh[delivery]() }
func NewTicket() Ticket             { return fresh[ticket]() }

func NewIdentityProvider() IdentityProvider { return fresh[identity]() }

// Parse checks that s is a well-formed id of kind K. A malformed id gets the
// same NotFound as an unknown one, so that a caller learns nothing from it.
func Parse[K Kind](s string) (ID[K], error) {
	var k K
	body, ok := strings.CutPrefix(s, k.prefix()+"_")
	if !ok || len(body) != bodyLen || body[0] > '7' {
		return "", notFound(k.prefix())
	}
	for i := range len(body) {
		if strings.IndexByte(alphabet, body[i]) < 0 {
			return "", notFound(k.prefix())
		}
	}
	return ID[K](s), nil
}

func notFound(prefix string) error {
	return fault.New(fault.NotFound, "not_found", "No such "+noun(prefix)+".")
}

func noun(prefix string) string {
	names := map[string]string{
		"env": "environment", "org": "organization", "key": "API key", "conn": "connection", "kek": "key", "bind": "binding",
		"ses": "session", "apr": "approval", "evt": "event", "pk": "passkey", "dek": "data key", "idp": "identity provider",
	}
	if n, ok := names[prefix]; ok {
		return n
	}
	return prefix
}

// Bytes returns the 128 bits of the id, for binary formats that hold one. It
// is the zero array for an empty or malformed id.
func (i ID[K]) Bytes() (b [16]byte) {
	_, body, ok := strings.Cut(string(i), "_")
	if !ok || len(body) != bodyLen {
		return b
	}
	var hi, lo uint64 // 130 bits of base32, of which the top two are zero
	for j := range len(body) {
		v := uint64(strings.IndexByte(alphabet, body[j])) & 31
		hi = hi<<5 | lo>>59
		lo = lo<<5 | v
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return b
}

// FromBytes is the inverse of Bytes.
func FromBytes[K Kind](b [16]byte) ID[K] {
	var k K
	return ID[K](k.prefix() + "_" + encode(b))
}

func encode(b [16]byte) string {
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	var out [bodyLen]byte
	for j := bodyLen - 1; j >= 0; j-- {
		out[j] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:])
}

// KEKFromBytes names the key whose id stands in an envelope.
func KEKFromBytes(b [16]byte) KEK { return FromBytes[kek](b) }

// DataKeyFromBytes names the data key whose id stands in its wrapped form.
func DataKeyFromBytes(b [16]byte) DataKey { return FromBytes[dataKey](b) }
