package main

import (
	"path"
	"strings"
	"unicode"
)

// clean makes of a name what a system makes of it when the file is saved: no directories, nothing behind a NUL, no
// invisible characters, no dots and spaces at the end.
func clean(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.Map(func(r rune) rune {
		switch {
		case invisible(r):
			return -1
		case r >= 0xff01 && r <= 0xff5e: // full width
			return r - 0xff01 + '!'
		case r == 0x2024 || r == 0xfe52: // other dots
			return '.'
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	return strings.ToLower(strings.Trim(strings.TrimRightFunc(name, dotOrSpace), `"' `))
}

// invisible reports whether a character does not show: control and format characters, and those that Unicode lets
// programs ignore (Default_Ignorable_Code_Point).
func invisible(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) ||
		unicode.Is(unicode.Variation_Selector, r)
}

func dotOrSpace(r rune) bool { return r == '.' || unicode.IsSpace(r) }

// blockedName tells whether a file of that name is not wanted.
func (x *examiner) blockedName(name string) bool {
	if strings.ContainsRune(name, 0) && x.blockedName(strings.ReplaceAll(name, "\x00", "")) {
		return true // to those who leave NUL out
	}
	name = strings.TrimRightFunc(clean(name), dotOrSpace)
	if x.blockedClean(name) {
		return true
	}
	// What follows a colon is a stream of the file before it.
	file, _, stream := strings.Cut(name, ":")
	return stream && x.blockedClean(strings.TrimRight(file, ". "))
}

func (x *examiner) blockedClean(name string) bool {
	for _, p := range x.BlockNames {
		if ok, _ := matchName(p, name); ok {
			return true
		}
	}
	i := strings.LastIndexByte(name, '.')
	if i < 0 || len(x.blocked) == 0 {
		return false
	}
	extension := strings.TrimSpace(name[i+1:])
	// A class identifier runs the program it belongs to.
	if strings.HasPrefix(extension, "{") && strings.HasSuffix(extension, "}") {
		return true
	}
	if packed[extension] && bool(x.InspectArchives) { // what is in it has the rest of the name
		stem := strings.TrimRightFunc(name[:i], dotOrSpace)
		return !strings.HasSuffix(stem, ".com") && x.blockedClean(stem) // reports are called after domains
	}
	return x.blocked[extension] && !x.allowed[extension]
}

// packed are the extensions of packed streams, which are added to the names of what is packed.
var packed = map[string]bool{"gz": true, "xz": true, "zst": true, "bz2": true, "lzma": true, "z": true, "br": true}

// documents are the extensions of documents that are made for macros.
var documents = map[string]bool{"docm": true, "dotm": true, "xlsm": true, "xltm": true, "xlam": true, "pptm": true, "potm": true,
	"ppsm": true, "ppam": true, "sldm": true}

// mayHaveMacros reports whether a name is that of a document with macros.
func mayHaveMacros(name string) bool {
	name = strings.TrimRightFunc(clean(name), dotOrSpace)
	return documents[name[strings.LastIndexByte(name, '.')+1:]] && strings.Contains(name, ".")
}

// matchName matches a name, in lower case, against a pattern.
func matchName(pattern, name string) (bool, error) { return path.Match(strings.ToLower(pattern), name) }
