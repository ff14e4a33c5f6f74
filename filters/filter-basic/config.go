package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"postern/internal/config"
)

const program = "filter-basic"

// Settings is every setting of the program.
type Settings struct {
	config.File

	Work    struct{}       `cmd:"" default:"1" hidden:""`
	Explain ExplainCommand `cmd:"" help:"Say what is seen in messages, and what would happen to them."`

	BlockExtensions string        `help:"Refuse attachments whose names end in one of these extensions, separated by spaces or commas; none switches it off." default:"${extensions}" placeholder:"LIST"`
	AllowExtensions string        `help:"Extensions to take out of the list again." placeholder:"LIST"`
	BlockNames      []string      `help:"Refuse attachments whose whole names match such a pattern of * ? and [...], in any case of letters. May be given several times." placeholder:"PATTERN"`
	InspectArchives config.Switch `help:"Look at the names inside archives too." default:"yes"`
	BlockFragments  config.Switch `help:"Refuse message/partial and message/external-body, whose content cannot be looked at." default:"yes"`
	TestSignatures  config.Switch `help:"Refuse the GTUBE and EICAR test strings." default:"yes"`
	OnBlocked       string        `help:"What to do with a message that is not wanted." enum:"reject,discard,mark" default:"reject"`
	OnComplex       string        `help:"What to do with a message that is nested too deep or has too many parts." enum:"reject,tempfail,mark" default:"reject"`
	OnAmbiguous     string        `help:"What to do with a message that mail readers may read in different ways, although nothing in any of them is blocked." enum:"none,mark,tempfail,reject" default:"none"`
	OnEncrypted     string        `help:"What to do with a message that has an archive that is encrypted, or cannot be looked into for another reason." enum:"none,mark,tempfail,reject" default:"none"`
	OnMacros        string        `help:"What to do with a message that has an Office document with macros." enum:"none,mark,tempfail,reject" default:"none"`
	MaxUnpacked     config.Bytes  `help:"Bytes to unpack of all archives of a message; one that has more is complex." default:"64M" placeholder:"SIZE"`
	AuthservID      string        `name:"authserv-id" help:"Name of this host in fields of results; empty is the name that the front end tells." placeholder:"NAME"`
	MaxDepth        int           `help:"Levels of multipart and attached messages." default:"20" placeholder:"N"`
	MaxParts        int           `help:"Parts of a message." default:"1000" placeholder:"N"`
	MaxPartHeader   config.Bytes  `help:"Size of the header of one part." default:"256k" placeholder:"SIZE"`
	Header          string        `help:"Name of the field that is added to clean messages; empty adds none. Fields of that name that came with the message are removed." default:"X-Filtered-By" placeholder:"NAME"`
	HeaderValue     string        `help:"Value of that field." default:"Postern filter-basic" placeholder:"TEXT"`
	MarkHeader      string        `help:"Name of the field that says why a message was marked." default:"X-Filter-Warning" placeholder:"NAME"`
	ScannerSettings
	SenderSettings

	log              io.Writer // nil is standard error
	blocked, allowed map[string]bool
}

// extensions are those of files that run when they are opened, on some system. They come from the lists of what
// Outlook and Exchange Online ("Blocked attachments in Outlook"), Gmail ("File types blocked in Gmail") and MIMEDefang
// (suggested-minimum-filter) block, and from what campaigns have used since: settings, saved searches and libraries,
// packages and their installers, disc images, add-ins, remote desktop connections, links to Office documents.
const extensions = "ade adp apk app appcontent-ms appinstaller application appref-ms appx appxbundle asp aspx asx bas bat bgi cab cer chm cmd cnt com cpl crt csh " +
	"der deskthemepack desktop diagcab diagcfg diagpkg dll dmg exe ex_ fxp gadget grp hlp hpj hta htc img inf ins iqy iso isp its jar jnlp js jse ksh library-ms lnk " +
	"mad maf mag mam maq mar mas mat mau mav maw mcf mda mdb mde mdt mdw mdz mjs msc msh msh1 msh1xml msh2 msh2xml mshxml msi msix msixbundle msp mst msu " +
	"nsh ocx oqy ops osd pcd pif pkg pl plg ppkg prf prg printerexport ps1 ps1xml ps2 ps2xml psc1 psc2 psd1 psdm1 psm1 py pyc pyo pyw pyz pyzw " +
	"rdp reg rqy scf scr sct search-ms searchconnector-ms settingcontent-ms shb shs slk sys theme themepack udl url vb vbe vbp vbs vhd vhdx vsmacros vsto vsw vxd " +
	"webpnp website wll ws wsb wsc wsf wsh xbap xla xll xnk"

// parse reads the settings. With --check it prints them and returns config.ErrDone.
// The command is that of the command line.
func (s *Settings) parse(args []string) (command string, err error) {
	p := config.Parser{Program: program, Vars: map[string]string{"extensions": extensions},
		Description: "Filter worker that blocks attachments by name. A multiplexor starts it with -server."}
	result, err := p.Parse(s, args)
	if err != nil {
		return "", err
	}
	if !s.Check {
		return result.Command, nil
	}
	if err := result.Print(os.Stdout); err != nil {
		return "", err
	}
	return "", config.ErrDone
}

// Validate checks what the types of the settings cannot say.
func (s *Settings) Validate() error {
	var err error
	if s.blocked, err = parseExtensions(s.BlockExtensions); err != nil {
		return &config.Error{Key: "block-extensions", Err: err}
	}
	if s.allowed, err = parseExtensions(s.AllowExtensions); err != nil {
		return &config.Error{Key: "allow-extensions", Err: err}
	}
	for _, p := range s.BlockNames {
		if _, err := matchName(p, ""); err != nil || p == "" {
			return &config.Error{Key: "block-names", Value: p, Err: fmt.Errorf("bad pattern %q", p)}
		}
	}
	for key, n := range map[string]int{"max-depth": s.MaxDepth, "max-parts": s.MaxParts} {
		if n < 1 || n > 100000 {
			return &config.Error{Key: key, Err: errors.New("must be between 1 and 100000")}
		}
	}
	if s.MaxDepth > 200 {
		return &config.Error{Key: "max-depth", Err: errors.New("must be at most 200")}
	}
	if s.MaxPartHeader < 1024 {
		return &config.Error{Key: "max-part-header", Err: errors.New("must be at least 1k")}
	}
	for key, name := range map[string]string{"header": s.Header, "mark-header": s.MarkHeader, "scan-header": s.ScanHeader} {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return &config.Error{Key: key, Err: fmt.Errorf("%q cannot be the name of a header field", name)}
		}
	}
	if !isServiceID(s.AuthservID) {
		return &config.Error{Key: "authserv-id", Err: fmt.Errorf("%q cannot stand in a header field", s.AuthservID)}
	}
	if s.MarkHeader == "" {
		return &config.Error{Key: "mark-header", Err: errors.New("must not be empty")}
	}
	if err := s.ScannerSettings.validate(); err != nil {
		return err
	}
	return s.SenderSettings.validate()
}

// parseExtensions reads a list such as "exe, .com bat".
func parseExtensions(list string) (map[string]bool, error) {
	set := map[string]bool{}
	for _, w := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		w = strings.ToLower(strings.TrimPrefix(w, "."))
		if w == "none" && len(set) == 0 {
			continue
		}
		if w == "" || strings.ContainsAny(w, "./\\*?") {
			return nil, fmt.Errorf("%q is no extension", w)
		}
		set[w] = true
	}
	return set, nil
}
