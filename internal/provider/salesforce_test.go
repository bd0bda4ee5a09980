package provider_test

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

// An attack that went through: Salesforce runs the Apex in the query of a GET, which
// passed as a read, in the tool that reads anything and through the proxy.
func TestSalesforceRunsNoApexAsARead(t *testing.T) {
	t.Parallel()
	const api = "https://acme.my.salesforce.com/services/data"
	for _, id := range []string{"salesforce", "salesforce_jwt"} {
		e, err := provider.FindEntry(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/v62.0/tooling/executeAnonymous/", "/v62.0/tooling/executeAnonymous", "/v31.0/Tooling/EXECUTEANONYMOUS/x", "/v99.0/tooling/execute%41nonymous/"} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				u, err := url.Parse(api + path + "?anonymousBody=delete+%5BSELECT+Id+FROM+Account%5D%3B")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.Shown.Read(provider.Raw{Method: method, URL: u, Whole: true}, api); !fault.Is(err, "access_refused") {
					t.Errorf("%s: %s %s through the proxy: %v", id, method, path, err)
				}
			}
			args, err := json.Marshal(map[string]any{"path": path, "query": map[string]string{"anonymousBody": "delete [SELECT Id FROM Account];"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tool(t, e.Shown, id+"_read").Build(args, api); !fault.Is(err, "access_refused") {
				t.Errorf("%s: %s in the tool: %v", id, path, err)
			}
		}
		u, err := url.Parse(api + "/v62.0/tooling/query?q=SELECT+Id+FROM+ApexClass")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Shown.Read(provider.Raw{Method: "GET", URL: u, Whole: true}, api); err != nil {
			t.Errorf("%s: a query beside it: %v", id, err)
		}
	}
}
