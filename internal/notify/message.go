package notify

// A Message is one event: a letter and what follows it. On the wire it is the
// letter, a space and the text if there is one, and a line feed.
type Message struct {
	Letter byte   // 'A' to 'Z'
	Text   string // "" for messages that are a letter only
}

// String is the message as it stands on the wire, without the line feed.
func (m Message) String() string {
	if m.Text == "" {
		return string(m.Letter)
	}
	return string(m.Letter) + " " + m.Text
}

// append adds the message and its line feed to dst. Control bytes in the text
// become spaces: a text that came from a worker must not forge a line.
func (m Message) append(dst []byte) []byte {
	dst = append(dst, m.Letter)
	if m.Text != "" {
		dst = append(dst, ' ')
		dst = appendText(dst, m.Text)
	}
	return append(dst, '\n')
}

// maxText bounds the text of one message, in bytes; what is longer is cut.
const maxText = 1000

func appendText(dst []byte, s string) []byte {
	if len(s) > maxText {
		s = s[:maxText]
	}
	start := len(dst)
	dst = append(dst, s...)
	for i, c := range dst[start:] {
		if c < ' ' || c == 0x7f {
			dst[start+i] = ' '
		}
	}
	return dst
}
