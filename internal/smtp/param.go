package smtp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Param is one ESMTP parameter of MAIL or RCPT: RFC 5321, 4.1.2.
type Param struct {
	Key   string // in capitals
	Value string // as typed; empty if there is none
	Text  string // the whole word as typed
}

// Keys of the parameters that are known.
const (
	ParamSize     = "SIZE"     // RFC 1870
	ParamBody     = "BODY"     // RFC 6152, RFC 3030
	ParamUTF8     = "SMTPUTF8" // RFC 6531
	ParamAuth     = "AUTH"     // RFC 4954, 5
	ParamRet      = "RET"      // RFC 3461, 4.3
	ParamEnvID    = "ENVID"    // RFC 3461, 4.4
	ParamNotify   = "NOTIFY"   // RFC 3461, 4.1
	ParamOrigRcpt = "ORCPT"    // RFC 3461, 4.2
)

// ErrSizeNumber says that the number of SIZE does not fit: no server takes such a message.
var ErrSizeNumber = errors.New("SIZE is out of range")

// ParseParams splits the words behind a path. The same key twice is an error.
func ParseParams(s string) ([]Param, error) {
	var params []Param
	for word := range strings.SplitSeq(s, " ") { // not at spaces of other scripts
		if word == "" {
			continue
		}
		key, value, has := strings.Cut(word, "=")
		if !isParamKey(key) || has && !isParamValue(value) {
			return nil, fmt.Errorf("parameter %.40q is malformed", word)
		}
		key = strings.ToUpper(key)
		for _, p := range params {
			if p.Key == key {
				return nil, fmt.Errorf("parameter %s is given twice", key)
			}
		}
		params = append(params, Param{Key: key, Value: value, Text: word})
	}
	return params, nil
}

func isParamKey(s string) bool {
	if s == "" || len(s) > 32 || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if !isLetter(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isParamValue(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == '=' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// CheckMail checks the value of a parameter of MAIL that is known; the caller knows which are allowed.
func (p Param) CheckMail() error {
	switch p.Key {
	case ParamSize:
		_, err := p.Size()
		return err
	case ParamBody:
		return p.oneOf("7BIT", "8BITMIME", "BINARYMIME")
	case ParamUTF8:
		if p.Text != p.Key && strings.Contains(p.Text, "=") {
			return errors.New("SMTPUTF8 takes no value")
		}
		return nil
	case ParamRet:
		return p.oneOf("FULL", "HDRS")
	case ParamEnvID:
		return p.checkXtext(100, false)
	case ParamAuth:
		return p.checkXtext(500, false)
	}
	return fmt.Errorf("parameter %s is not known", p.Key)
}

// CheckRcpt checks the value of a parameter of RCPT; wide says that the message is one with SMTPUTF8.
func (p Param) CheckRcpt(wide bool) error {
	switch p.Key {
	case ParamNotify:
		words := strings.Split(strings.ToUpper(p.Value), ",")
		for _, w := range words {
			ok := w == "SUCCESS" || w == "FAILURE" || w == "DELAY" || w == "NEVER" && len(words) == 1
			if !ok {
				return errors.New("NOTIFY is malformed")
			}
		}
		return nil
	case ParamOrigRcpt:
		kind, text, ok := strings.Cut(p.Value, ";")
		if !ok || !isParamKey(kind) {
			return errors.New("ORCPT is malformed")
		}
		// RFC 6533, 3: an address of this type alone may be written in UTF-8.
		return Param{Key: p.Key, Value: text}.checkXtext(500, wide && strings.EqualFold(kind, "utf-8"))
	}
	return fmt.Errorf("parameter %s is not known", p.Key)
}

// Size returns the number of bytes that SIZE announces.
func (p Param) Size() (int64, error) {
	if p.Value == "" || len(p.Value) > 20 {
		return 0, errors.New("SIZE is malformed")
	}
	for i := range len(p.Value) {
		if !isDigit(p.Value[i]) {
			return 0, errors.New("SIZE is malformed")
		}
	}
	n, err := strconv.ParseInt(p.Value, 10, 64)
	if err != nil {
		return 0, ErrSizeNumber
	}
	return n, nil
}

func (p Param) oneOf(words ...string) error {
	for _, w := range words {
		if strings.EqualFold(w, p.Value) {
			return nil
		}
	}
	return fmt.Errorf("value of %s is not known", p.Key)
}

func (p Param) checkXtext(limit int, wide bool) error {
	if !isASCII(p.Value) && !(wide && utf8.ValidString(p.Value)) {
		return fmt.Errorf("value of %s has bytes outside ASCII", p.Key)
	}
	if len(p.Value) > limit {
		return fmt.Errorf("value of %s is too long", p.Key)
	}
	_, err := DecodeXtext(p.Value)
	return err
}

// DecodeXtext undoes the encoding of RFC 3461, 4. What decodes to a control byte is an error, as are
// bytes that xtext may not hold. UTF-8 is taken as it is (RFC 6533, 3).
func DecodeXtext(s string) (string, error) {
	if strings.IndexByte(s, '+') < 0 && isPlainXtext(s) {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		b := s[i]
		if b == '+' {
			if i+2 >= len(s) {
				return "", errors.New("xtext ends within an escape")
			}
			hi, lo := upperHex(s[i+1]), upperHex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", errors.New("xtext has a malformed escape")
			}
			b, i = byte(hi<<4|lo), i+2
		}
		if b < ' ' || b == 0x7f {
			return "", errors.New("xtext holds a control byte")
		}
		out = append(out, b)
	}
	return string(out), nil
}

func isPlainXtext(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// upperHex takes capitals only, as RFC 3461 asks, and small letters, which exist.
func upperHex(b byte) int {
	switch {
	case isDigit(b):
		return int(b - '0')
	case 'A' <= b && b <= 'F', 'a' <= b && b <= 'f':
		return int(b&^0x20-'A') + 10
	}
	return -1
}
