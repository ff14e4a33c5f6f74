package senderauth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bits of a key: RFC 8301 wants at least so many, and one with more than that costs much time.
const (
	minRSA = 1024
	maxRSA = 8192
	maxKey = (maxRSA/8 + 64) / 3 * 4 // bytes in base64, with those around the number
)

// A domainKey is what a domain signs with.
type domainKey struct{ key any }

func (k domainKey) verify(hash crypto.Hash, sum, signature []byte) bool {
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, hash, sum, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, sum, signature) // RFC 8463: of the hash
	}
	return false
}

// lookupKey asks a domain for its key (RFC 6376, 3.6.1), of a kind: rsa or ed25519.
func lookupKey(ctx context.Context, r *client, selector, name, kind string) (domainKey, error) {
	if selector == "" || name == "" {
		return domainKey{}, errors.New("no domain or selector")
	}
	texts, err := r.LookupTXT(ctx, selector+"._domainkey."+domain(name))
	if err != nil {
		return domainKey{}, fmt.Errorf("key cannot be had: %w", err)
	}
	if len(texts) != 1 {
		return domainKey{}, fmt.Errorf("%d records of a key", len(texts))
	}
	return parseKey(texts[0], kind)
}

// keys asks for the record of a key, for who parses it by other means. One that is longer than keys may be is not given.
func keys(ctx context.Context, r *client, name string) ([]string, error) {
	texts, err := r.LookupTXT(ctx, name)
	for _, text := range texts {
		if tags, err := parseTags(text); err != nil || len(compact(tags["p"])) > maxKey {
			return nil, errors.New("key is too long, or its record cannot be read")
		}
	}
	return texts, err
}

// parseKey reads the record of a key.
func parseKey(record, kind string) (domainKey, error) {
	tags, err := parseTags(record)
	if err != nil {
		return domainKey{}, fmt.Errorf("key: %w", err)
	}
	has := func(tag, value string) bool {
		list := strings.Split(compact(tags[tag]), ":")
		return tags[tag] == "" || slices.Contains(list, value) || tag == "s" && slices.Contains(list, "*")
	}
	if !has("v", "DKIM1") || !has("h", "sha256") || !has("s", "email") {
		return domainKey{}, errors.New("key is for something else")
	}
	if k := tags["k"]; k != kind && (k != "" || kind != "rsa") {
		return domainKey{}, errors.New("key is of another kind")
	}
	data, err := base64.StdEncoding.DecodeString(compact(tags["p"]))
	if err != nil || len(data) == 0 {
		return domainKey{}, errors.New("key was revoked, or is not base64")
	}
	if kind == "ed25519" {
		if len(data) != ed25519.PublicKeySize {
			return domainKey{}, errors.New("key has a wrong size")
		}
		return domainKey{ed25519.PublicKey(data)}, nil
	}
	if kind != "rsa" {
		return domainKey{}, errors.New("key is of a kind that is not known")
	}
	return parseRSA(data)
}

// parseRSA reads a key as RFC 6376 has it, or as many publish it.
func parseRSA(data []byte) (domainKey, error) {
	key, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		key, err = x509.ParsePKCS1PublicKey(data)
	}
	if r, ok := key.(*rsa.PublicKey); err == nil && ok && r.N.BitLen() >= minRSA && r.N.BitLen() <= maxRSA {
		return domainKey{r}, nil
	}
	return domainKey{}, fmt.Errorf("key is no RSA key of %d to %d bits", minRSA, maxRSA)
}
