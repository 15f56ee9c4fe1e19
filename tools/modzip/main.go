// Command modzip packs the module in a directory the way a module proxy would
// serve it, so that a go command can fetch it by version before it is published.
//
//	modzip -dir <module> -version v0.0.0-ci -proxy <folder>
//
// The folder can then be used as GOPROXY=file://<folder>. The command packs the files that
// git tracks or would track, with their contents in the working tree. It leaves out nested
// modules, as the go command does.
//
// A nested module is packed as it will be published: the replace lines for other modules of
// this repository are removed, and these modules are required in the same version.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	dir := flag.String("dir", ".", "folder of the module")
	version := flag.String("version", "", "canonical semantic version to pack it as")
	proxy := flag.String("proxy", "", "folder that becomes the proxy")
	flag.Parse()
	if flag.NArg() > 0 || *version == "" || *proxy == "" {
		flag.Usage()
		os.Exit(2)
	}
	m, err := pack(*dir, *version, *proxy)
	if err != nil {
		fmt.Fprintln(os.Stderr, "modzip:", err)
		os.Exit(1)
	}
	fmt.Println(m)
}

// pack writes the four files of the module proxy protocol for one version.
func pack(dir, version, proxy string) (module.Version, error) {
	none := module.Version{}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return none, err
	}
	m := module.Version{Path: modfile.ModulePath(mod), Version: version}
	if err := module.Check(m.Path, m.Version); err != nil {
		return none, err
	}
	if mod, err = published(mod, version); err != nil {
		return none, err
	}
	files, err := tracked(dir)
	if err != nil {
		return none, err
	}
	for i, f := range files {
		if f.Path() == "go.mod" {
			files[i] = text{f, mod}
		}
	}
	var packed bytes.Buffer
	if err := zip.Create(&packed, m, files); err != nil {
		return none, fmt.Errorf("pack %s: %w", m, err)
	}
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return none, err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{m.Version, time.Now().UTC()})
	if err != nil {
		return none, err
	}
	at := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return none, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{m.Version + ".zip", packed.Bytes()},
		{m.Version + ".mod", mod},
		{m.Version + ".info", info},
		{"list", []byte(m.Version + "\n")},
	} {
		if err := os.WriteFile(filepath.Join(at, f.name), f.data, 0o644); err != nil {
			return none, err
		}
	}
	return m, nil
}

// published returns go.mod without replace lines: a module that was replaced by a folder is
// required by its version.
func published(mod []byte, version string) ([]byte, error) {
	f, err := modfile.Parse("go.mod", mod, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range f.Replace {
		if !modfile.IsDirectoryPath(r.New.Path) {
			return nil, fmt.Errorf("go.mod replaces %s by a module: nobody else would", r.Old.Path)
		}
		if err := f.AddRequire(r.Old.Path, version); err != nil {
			return nil, err
		}
		if err := f.DropReplace(r.Old.Path, r.Old.Version); err != nil {
			return nil, err
		}
	}
	f.Cleanup()
	return f.Format()
}

// tracked lists the files under dir that git has or would add.
func tracked(dir string) ([]zip.File, error) {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", dir, err)
	}
	var files []zip.File
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		f := file{dir: dir, path: name}
		switch info, err := f.Lstat(); {
		case errors.Is(err, fs.ErrNotExist): // removed, not yet committed
		case err != nil:
			return nil, err
		case info.Mode().IsRegular():
			files = append(files, f)
		}
	}
	return files, nil
}

// file is one file of a module, by its slash-separated path.
type file struct{ dir, path string }

// Path implements zip.File.
func (f file) Path() string { return f.path }

// Lstat implements zip.File.
func (f file) Lstat() (os.FileInfo, error) { return os.Lstat(f.name()) }

// Open implements zip.File.
func (f file) Open() (io.ReadCloser, error) { return os.Open(f.name()) }

// text is a file that is packed with other contents.
type text struct {
	zip.File
	is []byte
}

// Lstat implements zip.File.
func (t text) Lstat() (os.FileInfo, error) {
	info, err := t.File.Lstat()
	return sized{info, int64(len(t.is))}, err
}

// Open implements zip.File.
func (t text) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(t.is)), nil }

type sized struct {
	os.FileInfo
	size int64
}

// Size implements os.FileInfo.
func (s sized) Size() int64 { return s.size }

func (f file) name() string { return filepath.Join(f.dir, filepath.FromSlash(f.path)) }
