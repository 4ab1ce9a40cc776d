//! Opening a bucket: Google Cloud Storage, S3 and what speaks like it, Azure Blob Storage.
//!
//! Owns: which credentials are used, and what is said when there are none. Does not own: retries (`patient`).
//!
//! Credentials come from where each cloud's own tools look for them: its variables, its files, its metadata server.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig, StaticCredentialProvider,
};

use super::calls::Calls;
use super::patient::PatientConnector;
use super::{StoreOptions, wrong_url};
use crate::error::{Error, Result};

/// The variable in which Google's own tools find a file of credentials.
const GOOGLE_FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Opens the bucket that `url` names; touches nothing yet.
pub(super) fn open(
    url: &str,
    parsed: &url::Url,
    options: &StoreOptions,
    calls: &Arc<Calls>,
) -> Result<Arc<dyn ObjectStore>> {
    let (_, prefix) = ObjectStoreScheme::parse(parsed)
        .map_err(|source| wrong_url(url, "its path is not valid").with_source(source))?;
    let wrong = |source: object_store::Error| {
        wrong_url(url, &format!("its settings are missing or wrong ({})", where_from(parsed.scheme())))
            .with_source(source)
    };
    let connector = PatientConnector {
        calls: Arc::clone(calls),
        chance: Arc::clone(&options.chance),
        total: options.patience.total,
    };
    let timeout = format!("{} ms", options.patience.request.as_millis());
    let objects: Arc<dyn ObjectStore> = match parsed.scheme() {
        "gs" => {
            let builder = google(options)?.with_url(url).with_http_connector(connector).with_retry(once());
            let builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(wrong)?)
        }
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_http_connector(connector).with_retry(once());
            let builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(wrong)?)
        }
        _ => {
            let builder =
                MicrosoftAzureBuilder::from_env().with_url(url).with_http_connector(connector).with_retry(once());
            let builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(wrong)?)
        }
    };
    match prefix.as_ref().is_empty() {
        true => Ok(objects),
        false => Ok(Arc::new(PrefixStore::new(objects, prefix))),
    }
}

/// Where the credentials for a kind of bucket are looked for, in this order.
pub(super) fn where_from(scheme: &str) -> &'static str {
    match scheme {
        "gs" => {
            "credentials: the setting storage.gcs_credentials, then GOOGLE_SERVICE_ACCOUNT or GOOGLE_SERVICE_ACCOUNT_KEY, \
             GOOGLE_APPLICATION_CREDENTIALS, the file of `gcloud auth application-default login`, the metadata server"
        }
        "s3" => {
            "credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, \
             the container's and the instance's metadata server; AWS_REGION names the region, AWS_ENDPOINT_URL another server"
        }
        _ => {
            "the account: AZURE_STORAGE_ACCOUNT_NAME; credentials: AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, \
             AZURE_CLIENT_ID with AZURE_TENANT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, the metadata server"
        }
    }
}

/// The library tries once; `patient` tries again.
fn once() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

fn google(options: &StoreOptions) -> Result<GoogleCloudStorageBuilder> {
    if let Some(endpoint) = endpoint(options) {
        // A fixed empty token covers all operations; the library's own switch for "no credentials" leaves out writes.
        let nobody = Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: String::new() }));
        let builder = GoogleCloudStorageBuilder::new().with_base_url(&endpoint).with_credentials(nobody);
        return Ok(builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true"));
    }
    let builder = GoogleCloudStorageBuilder::from_env();
    if let Some(file) = &options.gcs_credentials {
        let path = file.display().to_string();
        return Ok(match google_file("`storage.gcs_credentials`", file)? {
            GoogleFile::ServiceAccount => builder.with_service_account_path(path),
            GoogleFile::User => builder.with_application_credentials(path),
        });
    }
    if let Some(file) = std::env::var_os(GOOGLE_FILE_VARIABLE).filter(|file| !file.is_empty()) {
        google_file(GOOGLE_FILE_VARIABLE, FilePath::new(&file))?;
    }
    Ok(builder)
}

fn endpoint(options: &StoreOptions) -> Option<String> {
    let endpoint = options.gcs_endpoint.clone().or_else(|| std::env::var("STORAGE_EMULATOR_HOST").ok())?;
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.is_empty() {
        true => None,
        false if endpoint.contains("://") => Some(endpoint.to_owned()),
        false => Some(format!("http://{endpoint}")),
    }
}

/// The kinds of credential files that the library can use.
enum GoogleFile {
    ServiceAccount,
    User,
}

/// Reads of what kind a file of credentials is; the library's own errors do not name the file.
fn google_file(named_by: &str, file: &FilePath) -> Result<GoogleFile> {
    let path = file.display();
    let bytes = std::fs::read(file).map_err(|source| {
        Error::invalid(format!("the file `{path}` that {named_by} names cannot be read")).with_source(source)
    })?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|source| {
        Error::invalid(format!("the file `{path}` that {named_by} names is not JSON")).with_source(source)
    })?;
    match json["type"].as_str() {
        Some("service_account") => Ok(GoogleFile::ServiceAccount),
        Some("authorized_user") => Ok(GoogleFile::User),
        other => Err(Error::invalid(format!(
            "the file `{path}` that {named_by} names holds credentials of the type {other:?}; `service_account` and \
             `authorized_user` can be used, and in a cluster the metadata server (workload identity) without any file"
        ))),
    }
}
