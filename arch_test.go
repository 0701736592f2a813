package branchline_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The house rules, checked on the source itself: which package may import which, one folder for each
// foreign dependency, and the limits on size and shape.

const modulePath = "github.com/branchline-video/branchline"

const (
	maxFunctionLines    = 70
	maxFileLines        = 500
	maxLineLength       = 120
	maxInterfaceMethods = 5
	maxParameters       = 5
)

// mayImport lists, for each folder, the project's folders that its non-test code may import. A
// trailing "/" means that folder and all below it. The root package is open to everyone.
func mayImport() map[string][]string {
	return map[string][]string{
		".":                   {},
		"internal/clock":      {},
		"internal/buffer":     {},
		"internal/media":      {"internal/buffer"},
		"internal/live":       {},
		"internal/backoff":    {},
		"internal/testcam":    {"internal/clock"},
		"internal/record":     {"internal/", "segstore"},
		"internal/sim":        {"edge/", "hub/", "federation/", "segstore/", "internal/"},
		"proto":               {},
		"segstore/index":      {"internal/clock"},
		"segstore/retain":     {},
		"segstore/crypt":      {},
		"segstore":            {"segstore/", "internal/clock", "internal/buffer"},
		"federation/budget":   {"internal/clock"},
		"federation/link":     {"internal/clock", "internal/backoff"},
		"federation/identity": {"internal/clock"},
		"federation/members":  {"federation/link", "internal/clock"},
		"federation":          {"federation/", "proto", "internal/clock", "internal/backoff"},
		"edge/ingest":         {"internal/"},
		"edge":                {"edge/ingest", "internal/", "segstore/"},
		"hub/policy":          {},
		"hub/catalog":         {"segstore/index", "internal/clock"},
		"hub/fetch":           {"hub/catalog", "hub/policy", "federation", "segstore/", "internal/"},
		"hub/access":          {"segstore/index", "internal/clock"},
		"hub/evidence":        {"segstore/index", "internal/clock"},
		"hub/onward":          {"segstore/index"},
		"hub/api":             {"hub/", "federation/", "segstore/", "internal/"},
		"hub/restream":        {"internal/"},
		"hub":                 {"hub/", "federation/", "segstore/", "internal/"},
		"web":                 {},
		"cmd/branchline":      {"edge/", "hub/", "federation/", "segstore/", "internal/", "web"},
	}
}

// foreignHomes lists the folders in which a foreign module may be imported by non-test code.
func foreignHomes() map[string][]string {
	return map[string][]string{
		"github.com/quic-go/quic-go":           {"federation/link"},
		"github.com/bluenviron/gortsplib/v5":   {"edge/ingest", "internal/testcam", "hub/restream"},
		"github.com/pion/rtp":                  {"edge/ingest", "internal/testcam", "hub/restream"},
		"github.com/pion/rtcp":                 {"edge/ingest", "internal/testcam", "hub/restream"},
		"github.com/bluenviron/mediacommon/v2": {"internal/media", "edge/ingest", "internal/testcam"},
		"github.com/Eyevinn/mp4ff":             {"internal/testcam/marks"},
		"github.com/dgraph-io/badger/v4":       {"segstore/index"},
		"github.com/hashicorp/memberlist":      {"federation/members"},
		"github.com/hashicorp/go-msgpack/v2":   {"federation/members"},
		"github.com/gorilla/websocket":         {"hub/api"},
		"google.golang.org/protobuf":           {"proto", "federation"},
		"github.com/alecthomas/kong":           {"cmd/branchline"},
		"github.com/goccy/go-yaml":             {"cmd/branchline"},
		"github.com/oapi-codegen/runtime":      {"hub/api"},
		"github.com/prometheus/client_golang":  {"hub", "hub/api", "edge", "cmd/branchline"},
		"github.com/cenkalti/backoff/v5":       {"internal/backoff"},
		"golang.org/x/crypto":                  {"hub/access"},
		"golang.org/x/net":                     {"federation/link"},
		"golang.org/x/sync":                    {"*"},
		"golang.org/x/sys":                     {"segstore", "segstore/index", "federation/link"},
		"golang.org/x/time":                    {"*"},
	}
}

// source is one Go file of the project.
type source struct {
	path, folder string // slash-separated, from the root
	test         bool
	text         string
	fset         *token.FileSet
	file         *ast.File
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			hidden := p != "." && strings.HasPrefix(name, ".")
			if hidden || name == "node_modules" || name == "testdata" || p == "tools" {
				return fs.SkipDir
			}
			return nil
		}
		generated := strings.HasSuffix(name, ".pb.go") || strings.HasSuffix(name, ".gen.go")
		if !strings.HasSuffix(name, ".go") || generated {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		all = append(all, source{p, path.Dir(p), strings.HasSuffix(name, "_test.go"), string(text), fset, file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d Go files, expected the whole project", len(all))
	}
	return all
}

func covers(entries []string, folder string) bool {
	return slices.ContainsFunc(entries, func(e string) bool {
		return e == "*" || e == folder ||
			strings.HasSuffix(e, "/") && (folder+"/" == e || strings.HasPrefix(folder, e))
	})
}

func TestImportsGoDown(t *testing.T) {
	allowed, homes := mayImport(), foreignHomes()
	for _, s := range sources(t) {
		if s.test || testOnly(s.folder) {
			continue
		}
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case imported == modulePath:
			case strings.HasPrefix(imported, modulePath+"/"):
				to := strings.TrimPrefix(imported, modulePath+"/")
				entries, known := allowed[s.folder]
				if !known {
					t.Errorf("%s: folder %q has no rule in mayImport", s.at(spec), s.folder)
				} else if !covers(entries, to) {
					t.Errorf("%s: %s must not import %s", s.at(spec), s.folder, to)
				}
			case strings.Contains(strings.SplitN(imported, "/", 2)[0], "."):
				checkForeign(t, s, spec, imported, homes)
			}
		}
	}
}

func checkForeign(t *testing.T, s source, at ast.Node, imported string, homes map[string][]string) {
	t.Helper()
	for module, folders := range homes {
		if imported == module || strings.HasPrefix(imported, module+"/") {
			if !covers(folders, s.folder) {
				t.Errorf("%s: only %v may import %s", s.at(at), folders, module)
			}
			return
		}
	}
	t.Errorf("%s: %s has no home in foreignHomes", s.at(at), imported)
}

// testOnly reports whether a folder holds code that only tests import.
func testOnly(folder string) bool {
	return strings.HasPrefix(folder, "e2e") || strings.HasPrefix(folder, "bench") ||
		folder == "federation/sourcetest" || folder == "internal/testcam/marks"
}

func TestTestOnlyCodeStaysInTests(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			to := strings.TrimPrefix(strings.Trim(spec.Path.Value, `"`), modulePath+"/")
			if testOnly(to) && !s.test && !testOnly(s.folder) {
				t.Errorf("%s: %s is for tests", s.at(spec), to)
			}
		}
	}
}

func TestPolicyIsPure(t *testing.T) {
	banned := []string{"context", "errors", "log", "log/slog", "os", "net", "sync"}
	for _, s := range sources(t) {
		if s.folder != "hub/policy" && s.folder != "segstore/retain" || s.test {
			continue
		}
		for _, spec := range s.file.Imports {
			if slices.Contains(banned, strings.Trim(spec.Path.Value, `"`)) {
				t.Errorf("%s: %s is pure and must not import %s", s.at(spec), s.folder, spec.Path.Value)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		lines := strings.Split(s.text, "\n")
		if len(lines)-1 > maxFileLines {
			t.Errorf("%s: %d lines, at most %d", s.path, len(lines)-1, maxFileLines)
		}
		for i, l := range lines {
			if n := utf8.RuneCountInString(l); n > maxLineLength {
				t.Errorf("%s:%d: line of %d characters, at most %d", s.path, i+1, n, maxLineLength)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				from, to := s.fset.Position(n.Pos()).Line, s.fset.Position(n.End()).Line
				if to-from+1 > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, at most %d", s.at(n), n.Name.Name, to-from+1, maxFunctionLines)
				}
				if k := n.Type.Params.NumFields(); k > maxParameters {
					t.Errorf("%s: %s has %d parameters, at most %d", s.at(n), n.Name.Name, k, maxParameters)
				}
			case *ast.InterfaceType:
				if k := n.Methods.NumFields(); k > maxInterfaceMethods {
					t.Errorf("%s: interface of %d methods, at most %d", s.at(n), k, maxInterfaceMethods)
				}
			}
			return true
		})
	}
}

func TestPackageDocuments(t *testing.T) {
	documented, seen := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		seen[s.folder] = true
		if s.file.Doc == nil {
			continue
		}
		if path.Base(s.path) != "doc.go" {
			t.Errorf("%s: the package document belongs in doc.go", s.path)
		}
		documented[s.folder] = true
	}
	for folder := range seen {
		if !documented[folder] {
			t.Errorf("%s has no package document in doc.go", folder)
		}
	}
}

// TestNoPackageState allows as package variables only errors, embedded files and compile-time checks.
func TestNoPackageState(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: no init functions", s.at(d))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR || s.test {
					continue
				}
				for _, spec := range d.Specs {
					checkPackageVariable(t, s, d, spec.(*ast.ValueSpec))
				}
			}
		}
	}
}

func checkPackageVariable(t *testing.T, s source, d *ast.GenDecl, v *ast.ValueSpec) {
	t.Helper()
	embedded := d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed")
	})
	for _, name := range v.Names {
		check, failure := name.Name == "_", strings.HasPrefix(strings.ToLower(name.Name), "err")
		linked := s.folder == "cmd/branchline" && name.Name == "version" // set by the linker
		if !check && !failure && !embedded && !linked {
			t.Errorf("%s: package variable %s: only errors, embeds and compile-time checks", s.at(v), name.Name)
		}
	}
}

// TestCallsHaveTheirPlace holds calls that only one place may make: the wall clock, the process's
// environment and its end, and sleeping, which no test may do.
func TestCallsHaveTheirPlace(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || pkg.Obj != nil {
				return true
			}
			call := pkg.Name + "." + sel.Sel.Name
			command := strings.HasPrefix(s.folder, "cmd/")
			switch call {
			case "time.Now":
				if !s.test && !testOnly(s.folder) && s.folder != "internal/clock" {
					t.Errorf("%s: the wall clock is read through internal/clock", s.at(n))
				}
			case "time.Sleep":
				t.Errorf("%s: no sleeping; wait on a condition or a timer", s.at(n))
			case "os.Exit", "log.Fatal", "log.Fatalf", "os.Getenv", "os.LookupEnv",
				"signal.Notify", "signal.NotifyContext":
				if !command && !s.test && !testOnly(s.folder) {
					t.Errorf("%s: %s belongs in cmd", s.at(n), call)
				}
			}
			return true
		})
	}
}

func TestNamesSayWhatThingsAre(t *testing.T) {
	banned := []string{"manager", "service", "util", "utils", "common", "helper", "helpers", "impl", "types", "models"}
	for _, s := range sources(t) {
		words := append(strings.Split(s.folder, "/"), strings.TrimSuffix(path.Base(s.path), ".go"))
		for _, w := range words {
			if slices.Contains(banned, w) {
				t.Errorf("%s: %q says nothing", s.path, w)
			}
		}
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				continue
			}
			for _, spec := range d.Specs {
				name := spec.(*ast.TypeSpec).Name.Name
				for _, b := range banned {
					if strings.HasSuffix(strings.ToLower(name), b) && b != "types" {
						t.Errorf("%s: type %s: %q says nothing", s.at(spec), name, b)
					}
				}
			}
		}
	}
}
