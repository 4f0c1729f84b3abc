package recipes

import (
	"flag"
	"os"
	"regexp"
	"testing"
)

var update = flag.Bool("update", false, "write the recipes into docs/identity.md")

// TestRecipesAreThoseOfTheDocumentation: what the page shows is what compiles.
// With -update the page is written.
func TestRecipesAreThoseOfTheDocumentation(t *testing.T) {
	const page = "../../../docs/identity.md"
	doc, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile("(?s)<!-- recipe: ([a-z]+\\.go) -->\n(\n```go\n.*?\n```\n)?")
	found := 0
	want := recipe.ReplaceAllFunc(doc, func(at []byte) []byte {
		found++
		file := string(recipe.FindSubmatch(at)[1])
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return []byte("<!-- recipe: " + file + " -->\n\n```go\n" + string(code) + "```\n")
	})
	if found != 5 {
		t.Errorf("%d recipes in %s, want 5", found, page)
	}
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(want) != string(doc) {
		t.Errorf("%s does not show the recipes as they are: run go test ./recipes -update in adapter/compat", page)
	}
}
