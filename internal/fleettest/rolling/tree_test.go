package rolling_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// where this package is below the root of the repository, and its module.
const (
	moduleDir = "internal/fleettest"
	program   = "./rolling/program"
)

// build builds the program of a tree into exe. A file of source, if given, is that program.
func build(ctx context.Context, tree, source, exe string) error {
	dir := filepath.Join(tree, moduleDir)
	if source != "" {
		if err := fillIn(source, tree, filepath.Join(dir, program)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", exe, program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program in %s: %w\n%s", tree, err, out)
	}
	return nil
}

// fillIn writes the program from source into dir, with the module that the tree has.
func fillIn(source, tree, dir string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(tree, "go.mod"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	module := strings.TrimSpace(strings.TrimPrefix(first, "module "))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "main.go"), bytes.ReplaceAll(text, []byte("{module}"), []byte(module)), 0o644)
}

// errNoHistory is a checkout that does not have an earlier commit.
var errNoHistory = errors.New("the history of this checkout does not have the commit, and a rolling deploy is tested with a program built from it. " +
	"Work in a clone with the whole history: git fetch --unshallow, or a new clone without --depth. An archive without .git cannot be tested")

// checkOut writes the tree of a commit of the repository at repo into dir.
func checkOut(ctx context.Context, repo, commit, dir string) error {
	if _, err := git(ctx, repo, "cat-file", "-e", commit+"^{commit}"); err != nil {
		return fmt.Errorf("commit %s: %w (%w)", commit, errNoHistory, err)
	}
	tree, err := git(ctx, repo, "archive", "--format=tar", commit)
	if err != nil {
		return err
	}
	// What a commit says of other trees, by a name that leads out of dir, is not written.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for files := tar.NewReader(bytes.NewReader(tree)); ; {
		head, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpack(root, head, files)
		}
		if err != nil {
			return fmt.Errorf("the tree of commit %s: %w", commit, err)
		}
	}
}

func unpack(root *os.Root, head *tar.Header, text io.Reader) error {
	name := strings.TrimSuffix(head.Name, "/")
	switch head.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		file, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, text)
		return errors.Join(err, file.Close())
	}
	return nil // the name of the commit, or a link, which no Go code is
}

// git runs git in the repository at repo, which may be the folder of a hook's own git.
func git(ctx context.Context, repo string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", repo}, args...)...)
	var out, errText bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errText
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(errText.Bytes()))
	}
	return out.Bytes(), nil
}
