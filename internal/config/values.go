package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Bytes is a number of bytes, written as a plain number or with one of the
// letters k, M, G and T (in any case, 1024 based): 512k, 10M. Never negative.
type Bytes int64

// byteUnits are the letters, each 1024 times the one before.
const byteUnits = "KMGT"

// UnmarshalText reads the text of a setting.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.ToUpper(string(text))
	shift := 0
	if s != "" {
		if i := strings.IndexByte(byteUnits, s[len(s)-1]); i >= 0 {
			s, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return fmt.Errorf("expected a size such as 512k or 10M but got %q", text)
	}
	*b = Bytes(n << shift)
	return nil
}

// String returns the shortest text that reads as the same number.
func (b Bytes) String() string {
	unit := ""
	for i := 0; i < len(byteUnits) && b != 0 && b%1024 == 0; i++ {
		b, unit = b/1024, byteUnits[i:i+1]
	}
	return strconv.FormatInt(int64(b), 10) + unit
}

// Share is a part of a whole, from 0 to 1, written in percent: 1%, 0.5%.
type Share float64

// UnmarshalText reads the text of a setting.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(0 <= percent && percent <= 100) {
		return fmt.Errorf("expected a percentage such as 5%% or 0.1%% but got %q", text)
	}
	*s = Share(percent / 100)
	return nil
}

// String gives the percentage.
func (s Share) String() string { return strconv.FormatFloat(100*float64(s), 'g', 6, 64) + "%" }

// Switch is yes or no, also written on and off, true and false, 1 and 0. On the
// command line --flag alone means yes, --flag=no means no.
type Switch bool

// Decode reads the value for kong.
func (s *Switch) Decode(ctx *kong.DecodeContext) error {
	return boolMapper{}.Decode(ctx, reflect.ValueOf(s).Elem())
}

// IsBool tells kong that the value may be missing.
func (s *Switch) IsBool() bool { return true }

// String gives "yes" or "no".
func (s Switch) String() string {
	if s {
		return "yes"
	}
	return "no"
}

// boolMapper reads plain bool settings as Switch is read; kong knows no on and off.
type boolMapper struct{}

func (boolMapper) IsBool() bool { return true }

func (boolMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	text := ctx.Scan.Pop().String()
	switch strings.ToLower(text) {
	case "yes", "on", "true", "1":
		target.SetBool(true)
	case "no", "off", "false", "0":
		target.SetBool(false)
	default:
		return fmt.Errorf("expected yes or no but got %q", text)
	}
	return nil
}

// decodeDuration reads a duration as Go writes it (1m30s) or a plain number of
// seconds, as the original programs had it. Negative ones mean nothing in a setting.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	target.SetInt(int64(d))
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, numErr := strconv.ParseUint(text, 10, 63); numErr == nil {
		if seconds > math.MaxInt64/uint64(time.Second) {
			return 0, fmt.Errorf("duration %q is too long", text)
		}
		return time.Duration(seconds) * time.Second, nil
	}
	if err != nil {
		return 0, fmt.Errorf("expected seconds or a duration such as 1m30s but got %q", text)
	}
	if d < 0 {
		return 0, errors.New("duration is negative")
	}
	return d, nil
}
