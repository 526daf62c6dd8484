// Judges the vectors with Go's golang.org/x/mod/sumdb, which shares nothing with this library:
//
//	judge VECTORS_DIRECTORY
//
// It prints one line for each case: what it is of, its number, and "accepted" or the reason why not.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type inclusion struct {
	Index, Size    int64
	LeafHash, Root string
	Path           []string
}

type consistency struct {
	Old, New         int64
	OldRoot, NewRoot string
	Path             []string
}

func (c *inclusion) UnmarshalJSON(data []byte) error {
	var raw struct {
		Index, Size int64
		Leaf        string `json:"leaf_hash"`
		Root        string
		Path        []string
	}
	err := json.Unmarshal(data, &raw)
	*c = inclusion{raw.Index, raw.Size, raw.Leaf, raw.Root, raw.Path}
	return err
}

func (c *consistency) UnmarshalJSON(data []byte) error {
	var raw struct {
		Old, New int64
		OldRoot  string `json:"old_root"`
		NewRoot  string `json:"new_root"`
		Path     []string
	}
	err := json.Unmarshal(data, &raw)
	*c = consistency{raw.Old, raw.New, raw.OldRoot, raw.NewRoot, raw.Path}
	return err
}

func hash(text string) (tlog.Hash, error) {
	var h tlog.Hash
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw) != len(h) {
		err = fmt.Errorf("a hash of %d bytes", len(raw))
	}
	copy(h[:], raw)
	return h, err
}

func hashes(texts []string) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(texts))
	for i, text := range texts {
		h, err := hash(text)
		if err != nil {
			return nil, err
		}
		found[i] = h
	}
	return found, nil
}

func (c inclusion) check() error {
	all, err := hashes(append([]string{c.LeafHash, c.Root}, c.Path...))
	if err != nil {
		return err
	}
	return tlog.CheckRecord(tlog.RecordProof(all[2:]), c.Size, all[1], c.Index, all[0])
}

func (c consistency) check() error {
	all, err := hashes(append([]string{c.OldRoot, c.NewRoot}, c.Path...))
	if err != nil {
		return err
	}
	return tlog.CheckTree(tlog.TreeProof(all[2:]), c.New, all[1], c.Old, all[0])
}

func say(what string, number int, err error) {
	verdict := "accepted"
	if err != nil {
		verdict = err.Error()
	}
	fmt.Printf("%s %d %s\n", what, number, verdict)
}

func read(directory, name string, into interface{}) {
	data, err := os.ReadFile(filepath.Join(directory, name))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(text, key string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	_, err = note.Open([]byte(text), note.VerifierList(verifier))
	return err
}

func main() {
	var trees struct {
		Inclusion          []inclusion
		Consistency        []consistency
		RefusedInclusion   []inclusion   `json:"refused_inclusion"`
		RefusedConsistency []consistency `json:"refused_consistency"`
	}
	read(os.Args[1], "merkle.json", &trees)
	for i, c := range trees.Inclusion {
		say("inclusion", i, c.check())
	}
	for i, c := range trees.Consistency {
		say("consistency", i, c.check())
	}
	for i, c := range trees.RefusedInclusion {
		say("refused_inclusion", i, c.check())
	}
	for i, c := range trees.RefusedConsistency {
		say("refused_consistency", i, c.check())
	}
	var notes struct {
		Keys        map[string]string
		Checkpoints []struct {
			Note     string
			SignedBy []string `json:"signed_by"`
		}
		Signatures []struct{ Note string } `json:"refused_signatures"`
	}
	read(os.Args[1], "checkpoint.json", &notes)
	for i, c := range notes.Checkpoints {
		for _, name := range c.SignedBy {
			if name == "log" || name == "next" {
				say("note", i, open(c.Note, notes.Keys[name]))
			}
		}
	}
	for i, c := range notes.Signatures {
		say("refused_note", i, open(c.Note, notes.Keys["log"]))
	}
}
