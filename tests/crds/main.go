// Judges CustomResourceDefinitions and manifests by the API server's own code: what it would say when the definitions
// are created, and when the manifests are applied with strict field validation.
//
// Input on standard input, as JSON: {"definitions": [YAML...], "manifests": {NAME: YAML of one document...}}.
// Output: {"definitions": [what is wrong with one...], "manifests": {NAME: [{"at": FIELD, "reason": TEXT}...]}}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	definitions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

type input struct {
	Definitions []string          `json:"definitions"`
	Manifests   map[string]string `json:"manifests"`
}

type fault struct {
	At  string `json:"at"`
	Reason string `json:"reason"`
}

type output struct {
	Definitions []string           `json:"definitions"`
	Manifests   map[string][]fault `json:"manifests"`
}

// kind is what the API server keeps of a definition to judge its objects by.
type kind struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)

	out := output{Definitions: []string{}, Manifests: map[string][]fault{}}
	kinds := map[string]kind{}
	for _, text := range in.Definitions {
		name, made, faults := define(scheme, text)
		out.Definitions = append(out.Definitions, faults...)
		if made != nil {
			kinds[name] = *made
		}
	}
	for name, text := range in.Manifests {
		out.Manifests[name] = judge(kinds, text)
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// define does what the API server does when a definition is created.
func define(scheme *runtime.Scheme, text string) (string, *kind, []string) {
	var given apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict([]byte(text), &given); err != nil {
		return "", nil, []string{err.Error()}
	}
	said := func(errors field.ErrorList) []string {
		var faults []string
		for _, err := range errors {
			faults = append(faults, given.Name+": "+err.Error())
		}
		return faults
	}
	scheme.Default(&given)
	// The controllers of a running server set it; its absence is not the file's fault.
	given.Status.StoredVersions = []string{given.Spec.Versions[0].Name}
	var internal apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&given, &internal, nil); err != nil {
		return "", nil, []string{given.Name + ": " + err.Error()}
	}
	faults := said(definitions.ValidateCustomResourceDefinition(context.Background(), &internal))

	// One version is moved to the top level by the conversion.
	props := internal.Spec.Validation
	if props == nil {
		props = internal.Spec.Versions[0].Schema
	}
	structural, err := schema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		return "", nil, append(faults, given.Name+": "+err.Error())
	}
	faults = append(faults, said(schema.ValidateStructural(nil, structural))...)
	validator, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		return "", nil, append(faults, given.Name+": "+err.Error())
	}
	return given.Spec.Names.Kind, &kind{structural, validator}, faults
}

// judge does what the API server does when an object is created: defaults, unknown fields, the schema, list keys.
func judge(kinds map[string]kind, text string) []fault {
	faults := []fault{}
	var object map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
		return append(faults, fault{"", err.Error()})
	}
	name, _ := object["kind"].(string)
	judged, known := kinds[name]
	if !known {
		return append(faults, fault{"kind", "no such kind"})
	}
	defaulting.Default(object, judged.structural)
	unknown := pruning.PruneWithOptions(object, judged.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		faults = append(faults, fault{path, "unknown field"})
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, judged.structural)
	errors := validation.ValidateCustomResource(nil, object, judged.validator)
	errors = append(errors, listtype.ValidateListSetsAndMaps(nil, judged.structural, object)...)
	for _, err := range errors {
		faults = append(faults, fault{err.Field, err.ErrorBody()})
	}
	return faults
}
