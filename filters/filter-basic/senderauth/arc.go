package senderauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// ARC is what came of the Authenticated Received Chain: hosts on the way that have changed the message, such as lists,
// have sealed what they had found out (RFC 8617). No kept library that can be had checks it.
type ARC struct {
	Value   authres.ResultValue // none, pass, fail, or temperror if a name server has failed
	Reason  string              // of a failure
	Sealers []string            // domains, the oldest first; those of a chain that passes
	Claimed []string            // domains that the newest seal and the newest signature say they are of; not proven

	found []string // values of their ARC-Authentication-Results
}

// maxSets is how many sets a chain may have (RFC 8617, 4.2.1).
const maxSets = 50

// Names of the fields of a set.
const (
	arcResults   = "arc-authentication-results"
	arcSignature = "arc-message-signature"
	arcSeal      = "arc-seal"
)

// An arcSet is what one host has added.
type arcSet struct{ results, signature, seal *field }

// arc validates the chain (RFC 8617, 5.2).
func (out *Results) arc(ctx context.Context, r *client, content []byte) {
	out.ARC = ARC{Value: authres.ResultFail}
	if !verifiable(content) {
		out.ARC.Reason = "header is too large"
		return
	}
	fields, body := split(content)
	sets, err := arcSets(fields)
	if err == nil && len(sets) == 0 {
		out.ARC.Value = authres.ResultNone
		return
	}
	if err == nil {
		newest := sets[len(sets)-1]
		out.ARC.Claimed = []string{domain(newest.seal.tags["d"]), domain(newest.signature.tags["d"])}
		err = validate(ctx, r, sets, fields, body)
	}
	if err != nil {
		if out.ARC.Reason = err.Error(); ctx.Err() != nil || isDNS(err) && isTemporary(err) {
			out.ARC.Value = authres.ResultTempError
		}
		return
	}
	out.ARC.Value = authres.ResultPass
	for _, set := range sets {
		out.ARC.Sealers = append(out.ARC.Sealers, domain(set.seal.tags["d"]))
		_, value, _ := strings.Cut(set.results.value, ";") // after the instance
		out.ARC.found = append(out.ARC.found, value)
	}
}

// registered is the result as it may stand in a field: a name server's failure has no name there (RFC 8617, 10.1).
func (a *ARC) registered() authres.ResultValue {
	if a.Value == authres.ResultTempError {
		return authres.ResultFail
	}
	return a.Value
}

// Vouched reports whether a sealer that is trusted has found that a message was from the author's domain, from: it, and
// all who came after it, are trusted. RFC 8617, 7.2.1, lets receivers hold that against a failure of DMARC.
func (a *ARC) Vouched(from string, trusts func(sealer string) bool) bool {
	for i := len(a.Sealers) - 1; i >= 0 && trusts(a.Sealers[i]); i-- {
		_, results, err := authres.Parse(bare(a.found[i]))
		if err != nil {
			continue
		}
		for _, result := range results {
			if d, ok := result.(*authres.DMARCResult); ok && d.Value == authres.ResultPass && domain(d.From) == from {
				return true
			}
		}
	}
	return false
}

// MayVouch reports whether the chain cannot be checked now, and might be vouched for by one who is trusted once it can:
// without that, a name server of the sender's own that fails would be as good as a chain.
func (a *ARC) MayVouch(trusts func(sealer string) bool) bool {
	untrusted := func(name string) bool { return !trusts(name) }
	return a.Value == authres.ResultTempError && len(a.Claimed) > 0 && !slices.ContainsFunc(a.Claimed, untrusted)
}

// bare is the value of a field without comments and quoted strings, in which there could be anything.
func bare(value string) string {
	var out strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && (depth > 0 || quoted):
			i++
		case depth == 0 && c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case depth > 0 && c == ')':
			depth--
		case depth == 0:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// arcSets collects the sets of a message in the order of their instances; none is missing, and each is complete.
func arcSets(fields []*field) ([]arcSet, error) {
	var sets []arcSet
	n := 0
	for _, f := range fields {
		if f.name != arcResults && f.name != arcSignature && f.name != arcSeal {
			continue
		}
		n++
		i, err := f.instance()
		if err != nil {
			return nil, err
		}
		for len(sets) < i {
			sets = append(sets, arcSet{})
		}
		place := map[string]**field{arcResults: &sets[i-1].results, arcSignature: &sets[i-1].signature, arcSeal: &sets[i-1].seal}[f.name]
		if *place != nil {
			return nil, fmt.Errorf("two fields %s of instance %d", f.name, i)
		}
		*place = f
	}
	if n != 3*len(sets) {
		return nil, errors.New("chain is not complete")
	}
	return sets, nil
}

// instance returns the number of the set that a field belongs to, and reads its tags.
func (f *field) instance() (int, error) {
	value := f.value
	if f.name == arcResults {
		value, _, _ = strings.Cut(value, ";") // what follows is no list of tags
	}
	var err error
	if f.tags, err = parseTags(value); err != nil {
		return 0, fmt.Errorf("%s: %w", f.name, err)
	}
	i, err := strconv.Atoi(f.tags["i"])
	if err != nil || i < 1 || i > maxSets || f.tags["i"][0] == '+' {
		return 0, fmt.Errorf("%s: instance is no number from 1 to %d", f.name, maxSets)
	}
	return i, nil
}

// validate checks what the seals claim of one another, the newest signature of the message, and all seals.
func validate(ctx context.Context, r *client, sets []arcSet, fields []*field, body []byte) error {
	for i, set := range sets {
		cv := strings.ToLower(set.seal.tags["cv"])
		if want := map[bool]string{true: "none", false: "pass"}[i == 0]; cv != want {
			return fmt.Errorf("seal %d: the chain before it is %q", i+1, harmless(cv))
		}
		if _, has := set.seal.tags["h"]; has {
			return fmt.Errorf("seal %d: names fields", i+1)
		}
	}
	newest := sets[len(sets)-1].signature
	if err := verifyMessage(ctx, r, newest, fields, body); err != nil {
		return fmt.Errorf("signature %d: %w", len(sets), err)
	}
	for i := len(sets); i > 0; i-- {
		seal := sets[i-1].seal
		var sealed []byte
		for _, set := range sets[:i] {
			for _, f := range []*field{set.results, set.signature, set.seal} {
				if f != seal {
					sealed = append(sealed, relaxed(f.raw)...)
				}
			}
		}
		if err := verify(ctx, r, seal.tags, append(sealed, ownPart(relaxed(withoutSignature(seal.raw)))...)); err != nil {
			return fmt.Errorf("seal %d: %w", i, err)
		}
	}
	return nil
}

// verifyMessage checks an ARC-Message-Signature: a DKIM-Signature (RFC 6376, 3.5) under another name.
func verifyMessage(ctx context.Context, r *client, f *field, fields []*field, body []byte) error {
	if _, has := f.tags["l"]; has {
		return errors.New("signs a part of the body only") // to which anything could be added
	}
	header, bodyForm, _ := strings.Cut(strings.ToLower(f.tags["c"]), "/")
	forms := []string{"", "simple", "relaxed"}
	if !slices.Contains(forms, header) || !slices.Contains(forms, bodyForm) {
		return fmt.Errorf("canonicalization %q is not known", harmless(f.tags["c"]))
	}
	hash := bodyHash(body, bodyForm == "relaxed")
	if want, err := base64.StdEncoding.DecodeString(compact(f.tags["bh"])); err != nil || !bytes.Equal(want, hash[:]) {
		return errors.New("body has changed")
	}
	form := func(raw string) string { return raw }
	if header == "relaxed" {
		form = relaxed
	}
	names := strings.Split(strings.ToLower(compact(f.tags["h"])), ":")
	if len(names) > maxNames {
		return fmt.Errorf("signs more than %d fields", maxNames)
	}
	if !slices.Contains(names, "from") || slices.Contains(names, arcSeal) {
		return errors.New("does not sign the fields that it must, or a seal")
	}
	var signed []byte
	left := slices.Clone(fields)
	for _, name := range names { // several of a name are signed from the bottom (RFC 6376, 5.4.2)
		for i := len(left) - 1; i >= 0; i-- {
			if left[i].name == name {
				signed = append(signed, form(left[i].raw)...)
				left = slices.Delete(left, i, i+1)
				break
			}
		}
	}
	return verify(ctx, r, f.tags, append(signed, ownPart(form(withoutSignature(f.raw)))...))
}

// verify checks the signature of what was signed.
func verify(ctx context.Context, r *client, tags map[string]string, signed []byte) error {
	kind, ok := strings.CutSuffix(strings.ToLower(tags["a"]), "-sha256")
	if !ok {
		return fmt.Errorf("algorithm %q is not accepted", harmless(tags["a"]))
	}
	signature, err := base64.StdEncoding.DecodeString(compact(tags["b"]))
	if err != nil {
		return errors.New("signature is not base64")
	}
	key, err := lookupKey(ctx, r, tags["s"], tags["d"], kind)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(signed)
	if !key.verify(crypto.SHA256, hash[:], signature) {
		return errors.New("signature is not right")
	}
	return nil
}
