package rawhttp

// BodyOf gives tests a body as a door reads it.
var BodyOf = bodyOf
