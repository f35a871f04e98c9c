// Reads files of Terraform with the parser and the formatter that Terraform and OpenTofu have: hashicorp/hcl.
//
// Arguments: files. Output, as JSON: {"faults": ["FILE:LINE: what is wrong"...], "references": {FILE: ["var.name"...]}}.
// Faults are syntax errors, and what `terraform fmt` would change. References are the names that expressions use, without
// those that a `for` expression declares. Exit code 1: a file could not be read.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

type report struct {
	Faults     []string            `json:"faults"`
	References map[string][]string `json:"references"`
}

func main() {
	found := report{Faults: []string{}, References: map[string][]string{}}
	for _, path := range os.Args[1:] {
		source, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		found.read(path, source)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (r *report) read(path string, source []byte) {
	file, diagnostics := hclsyntax.ParseConfig(source, path, hcl.InitialPos)
	for _, diagnostic := range diagnostics.Errs() {
		r.Faults = append(r.Faults, diagnostic.Error())
	}
	if diagnostics.HasErrors() {
		return
	}
	if formatted := hclwrite.Format(source); !bytes.Equal(source, formatted) {
		r.fault(path, firstDifference(source, formatted), "not in the format of `terraform fmt`")
	}
	body := file.Body.(*hclsyntax.Body)
	used := map[string]bool{}
	for _, traversal := range variables(body) {
		used[name(traversal)] = true
	}
	names := make([]string, 0, len(used))
	for name := range used {
		names = append(names, name)
	}
	slices.Sort(names)
	r.References[path] = names
	r.obsolete(path, source, body, "")
}

// obsolete reports the forms of Terraform 0.11 that `terraform fmt` rewrites, which hclwrite.Format leaves.
func (r *report) obsolete(path string, source []byte, body *hclsyntax.Body, within string) {
	for _, attribute := range body.Attributes {
		line := attribute.SrcRange.Start.Line
		if _, is := attribute.Expr.(*hclsyntax.TemplateWrapExpr); is {
			r.fault(path, line, "an interpolation and nothing else: give the expression without quotes")
		}
		if within == "variable" && attribute.Name == "type" {
			type_ := string(attribute.Expr.Range().SliceBytes(source))
			if strings.HasPrefix(type_, `"`) || slices.Contains([]string{"list", "map", "set"}, type_) {
				r.fault(path, line, "an obsolete type: "+type_)
			}
		}
	}
	for _, block := range body.Blocks {
		for _, label := range block.LabelRanges {
			if label.SliceBytes(source)[0] != '"' {
				r.fault(path, label.Start.Line, "a label without quotes")
			}
		}
		// Only blocks at the top declare variables.
		type_ := "." + block.Type
		if within == "" {
			type_ = block.Type
		}
		r.obsolete(path, source, block.Body, type_)
	}
}

func (r *report) fault(path string, line int, what string) {
	r.Faults = append(r.Faults, fmt.Sprintf("%s:%d: %s", path, line, what))
}

func variables(body *hclsyntax.Body) []hcl.Traversal {
	var found []hcl.Traversal
	for _, attribute := range body.Attributes {
		found = append(found, hclsyntax.Variables(attribute.Expr)...)
	}
	for _, block := range body.Blocks {
		found = append(found, variables(block.Body)...)
	}
	return found
}

// name is a reference up to its first index, such as `data.aws_region.current`.
func name(traversal hcl.Traversal) string {
	text := traversal.RootName()
	for _, step := range traversal[1:] {
		attribute, is := step.(hcl.TraverseAttr)
		if !is {
			break
		}
		text += "." + attribute.Name
	}
	return text
}

func firstDifference(source, formatted []byte) int {
	others := bytes.Split(formatted, []byte("\n"))
	lines := bytes.Split(source, []byte("\n"))
	for at, line := range lines {
		if at >= len(others) || !bytes.Equal(line, others[at]) {
			return at + 1
		}
	}
	return len(lines)
}
