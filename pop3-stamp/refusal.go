package main

import "strings"

// responseCode returns the response code that a reply begins with, in upper case, "" if there is none. RFC
// 2449, 8.
func responseCode(text string) string {
	code, _, ok := strings.Cut(strings.TrimPrefix(text, "["), "]")
	if !ok || !strings.HasPrefix(text, "[") || strings.ContainsAny(code, " []") {
		return ""
	}
	return strings.ToUpper(code)
}

// otherReasons are words of servers without response codes for what is no fault of the user's name or password.
var otherReasons = []string{"lock", "in use", "busy", "already", "another", "session", "connection", "later", "tempor", "unavailable",
	"not available", "too many", "too often", "too frequent", "too soon", "wait", "timeout", "timed out", "internal", "overload", "maintenance",
	"shutting down", "disk", "quota", "open"}

// isWrongPassword reports whether a server refused a login because of the user's name or password, RFC 3206.
// A server that does not say so by the response code AUTH, or by another one that it is something else, is
// taken at its words; but not at those of the client, whose name for the user it may repeat.
func isWrongPassword(text, user string) bool {
	if code := responseCode(text); code != "" {
		kind, _, _ := strings.Cut(code, "/")
		return kind == "AUTH"
	}
	text = strings.ToLower(text)
	if len(user) >= len("lock") {
		text = strings.ReplaceAll(text, strings.ToLower(user), "")
	}
	if strings.Contains(text, "passw") {
		return true
	}
	for _, word := range otherReasons {
		if strings.Contains(text, word) {
			return false
		}
	}
	return true
}
