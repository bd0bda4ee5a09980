package azurekv

import (
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/ambit-dev/ambit/internal/keyring"
)

// place is one of Azure's clouds, and which of the two services a host is.
type place struct {
	cloud cloud.Configuration
	hsm   bool
}

var clouds = map[string]place{
	"vault.azure.net":              {cloud.AzurePublic, false},
	"managedhsm.azure.net":         {cloud.AzurePublic, true},
	"vault.azure.cn":               {cloud.AzureChina, false},
	"managedhsm.azure.cn":          {cloud.AzureChina, true},
	"vault.usgovcloudapi.net":      {cloud.AzureGovernment, false},
	"managedhsm.usgovcloudapi.net": {cloud.AzureGovernment, true},
}

func clientOptions(o keyring.Options, home place) azcore.ClientOptions {
	return azcore.ClientOptions{Cloud: home.cloud, Transport: o.HTTP, Retry: retries, Telemetry: policy.TelemetryOptions{Disabled: true}}
}

// credential finds the server's own identity. The SDK's default chain is not used:
// it also starts the command-line tools of developers. tenant and client, where
// given, go before the environment's.
func credential(o keyring.Options, options azcore.ClientOptions, tenant, client string) (azcore.TokenCredential, error) {
	if tenant == "" {
		tenant = o.Getenv("AZURE_TENANT_ID")
	}
	if client == "" {
		client = o.Getenv("AZURE_CLIENT_ID")
	}
	var creds azcore.TokenCredential
	var err error
	switch password, file := o.Getenv("AZURE_CLIENT_SECRET"), o.Getenv("AZURE_FEDERATED_TOKEN_FILE"); {
	case password != "":
		creds, err = azidentity.NewClientSecretCredential(tenant, client, password, &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case file != "":
		creds, err = azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: client, TenantID: tenant, TokenFilePath: file,
		})
	default:
		machine := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if client != "" {
			machine.ID = azidentity.ClientID(client)
		}
		creds, err = azidentity.NewManagedIdentityCredential(machine)
	}
	if err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the Azure identity of this server is incomplete: look at AZURE_TENANT_ID and AZURE_CLIENT_ID (%T)", err))
	}
	return creds, nil
}
