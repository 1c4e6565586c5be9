//! A phone's HTTP side: it fetches a page, reads the XML, appends what was typed and follows softkeys, as a
//! real one does. It speaks to any Extension Mobility application, not only ours.
//!
//! It has no browser's habits: no redirects, no proxies, no cookies. What was typed is in no error and no
//! `Debug`.

use std::{fmt, sync::Arc, time::Duration};

use quick_xml::{Reader, events::Event};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::login::LoginType;

/// What a phone gives up after; longer than any login may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest page a phone reads, in bytes. Ours are below 5,000 characters.
const MAX_PAGE_BYTES: usize = 64 * 1_024;
const PATH: &str = "/emapp/EMAppServlet";

/// Why a phone could not do what was asked of it. A refusal that it shows is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL is none.
    #[error("the phone's base URL must be http or https with a host and perhaps a port")]
    BaseUrl,
    /// The certificate to trust can't be read.
    #[error("the certificate that the phone should trust can't be read: {0}")]
    Certificate(String),
    /// The request failed below HTTP.
    #[error("the phone got no answer")]
    Http(#[source] reqwest::Error),
    /// The answer is longer than a phone reads.
    #[error("the page is longer than {MAX_PAGE_BYTES} bytes")]
    TooLong,
    /// The answer is typed as XML and is none.
    #[error("the page is not well-formed XML")]
    Xml(#[source] quick_xml::DeError),
    /// The page lacks what was to be pressed or filled in.
    #[error("the page has no {0}")]
    Missing(String),
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // The URL has the PIN in it.
        Self::Http(error.without_url())
    }
}

/// A key under the screen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SoftKey {
    /// What it says.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// What it does.
    #[serde(rename = "URL", default)]
    pub url: String,
}

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InputItem {
    /// What stands beside it.
    #[serde(rename = "DisplayName", default)]
    pub label: String,
    /// The query parameter that carries what is typed.
    #[serde(rename = "QueryStringParam")]
    pub param: String,
    /// What the keypad types.
    #[serde(rename = "InputFlags", default)]
    pub flags: String,
}

/// An entry of a menu.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MenuItem {
    /// What it says.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// Where it leads.
    #[serde(rename = "URL", default)]
    pub url: String,
}

/// What the phone displays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// HTTP status.
    pub status: u16,
    /// The phone object, for example `CiscoIPPhoneText`; empty when the answer is no XML.
    pub object: String,
    /// The line on top.
    pub title: String,
    /// The line below.
    pub prompt: String,
    /// The text between; of an answer that is no XML, all of it.
    pub text: String,
    /// The keys, by position as they came.
    pub softkeys: Vec<SoftKey>,
    /// Where a form's answers go.
    pub url: Option<String>,
    /// A form's fields.
    pub inputs: Vec<InputItem>,
    /// A menu's entries.
    pub menu: Vec<MenuItem>,
    /// The EM code in the text; none on a success page.
    pub em_code: Option<u16>,
    /// The ref in the text.
    pub reference: Option<String>,
    /// The answer as it came.
    pub body: String,
    /// From the request to the last byte of the answer.
    pub elapsed: Duration,
}

impl Shown {
    /// The elapsed time in milliseconds.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.elapsed.as_secs_f64() * 1_000.0
    }

    /// Whether it is a form.
    #[must_use]
    pub fn is_form(&self) -> bool {
        self.object == "CiscoIPPhoneInput"
    }

    /// The first line of the text: the EM text of an error, or the word that it succeeded.
    #[must_use]
    pub fn headline(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// What a softkey leads to.
    #[must_use]
    pub fn softkey(&self, name: &str) -> Option<&str> {
        self.softkeys
            .iter()
            .find(|key| key.name == name)
            .map(|key| key.url.as_str())
    }
}

/// The answer to a `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
}

/// A phone that fetches pages from one node.
#[derive(Clone)]
pub struct Phone {
    client: reqwest::Client,
    base: String,
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Phone {
    /// A phone for `https://host:port`. It trusts the certificates of the PEM text: a server that shows
    /// one of them, whatever its names, or one that they issued for the host dialled.
    ///
    /// # Errors
    /// [`Error::BaseUrl`], [`Error::Certificate`].
    pub fn https(base_url: &str, certificates_pem: &str) -> Result<Self, Error> {
        Self::new(base_url, "https", tls_config(certificates_pem)?)
    }

    /// A phone for `http://host:port`.
    ///
    /// # Errors
    /// [`Error::BaseUrl`].
    pub fn plain(base_url: &str) -> Result<Self, Error> {
        // The client wants settings for TLS even where it will never use them.
        let config = config_with(RootCertStore::empty())?;
        Self::new(base_url, "http", config)
    }

    fn new(base_url: &str, scheme: &str, tls: ClientConfig) -> Result<Self, Error> {
        let base = url::Url::parse(base_url).map_err(|_| Error::BaseUrl)?;
        if base.scheme() != scheme || base.path() != "/" || base.query().is_some() {
            return Err(Error::BaseUrl);
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            client,
            base: base_url.trim_end_matches('/').to_owned(),
        })
    }

    /// Presses the services key: fetches the page of the phone's service URL.
    ///
    /// # Errors
    /// [`Error`] when no page came back.
    pub async fn login_form(
        &self,
        device: &str,
        login_type: Option<LoginType>,
    ) -> Result<Shown, Error> {
        self.get(&self.service_url(device, login_type)).await
    }

    /// Fetches the form, fills it in and submits it. When the first page isn't a form that page is what it
    /// shows. The elapsed time is that of the submission alone.
    ///
    /// # Errors
    /// [`Error`] when no page came back.
    pub async fn login(
        &self,
        device: &str,
        login_type: Option<LoginType>,
        user: &str,
        pin: &str,
    ) -> Result<Shown, Error> {
        let form = self.login_form(device, login_type).await?;
        if form.is_form() {
            self.fill_in(&form, &[user, pin]).await
        } else {
            Ok(form)
        }
    }

    /// Logs in with one request and no form, as scripts do.
    ///
    /// # Errors
    /// [`Error`] when no page came back.
    pub async fn login_at_once(
        &self,
        device: &str,
        login_type: Option<LoginType>,
        user: &str,
        pin: &str,
    ) -> Result<Shown, Error> {
        let typed = [("userid", user), ("seq", pin)];
        let url = with_params(&self.service_url(device, login_type), &typed);
        self.get(&url).await
    }

    /// Fetches the page and answers Yes when it asks whether to log out; otherwise it follows the link that
    /// logs out at once. The elapsed time is that of the logout alone.
    ///
    /// # Errors
    /// [`Error`] when no page came back.
    pub async fn logout(&self, device: &str) -> Result<Shown, Error> {
        let question = self.login_form(device, None).await?;
        match question.softkey("Yes") {
            Some(url) => self.get(url).await,
            None => {
                let url = self.service_url(device, None);
                self.get(&with_params(&url, &[("doLogout", "true")])).await
            }
        }
    }

    /// Types one text into each field of a form and submits it.
    ///
    /// # Errors
    /// [`Error::Missing`] when it isn't a form, otherwise when no page came back.
    pub async fn fill_in(&self, form: &Shown, typed: &[&str]) -> Result<Shown, Error> {
        let Some(url) = &form.url else {
            return Err(Error::Missing("form".to_owned()));
        };
        let params: Vec<(&str, &str)> = form
            .inputs
            .iter()
            .map(|item| item.param.as_str())
            .zip(typed.iter().copied())
            .collect();
        self.get(&with_params(url, &params)).await
    }

    /// Selects an entry of a menu.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none of that name, otherwise when no page came back.
    pub async fn select(&self, shown: &Shown, entry: &str) -> Result<Shown, Error> {
        match shown.menu.iter().find(|item| item.name == entry) {
            Some(item) => self.get(&item.url).await,
            None => Err(Error::Missing(format!("menu entry {entry}"))),
        }
    }

    /// Presses a softkey that leads to a page.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none of that name, otherwise when no page came back.
    pub async fn press(&self, shown: &Shown, softkey: &str) -> Result<Shown, Error> {
        match shown.softkey(softkey) {
            Some(url) if url.starts_with("http") => self.get(url).await,
            _ => Err(Error::Missing(format!("softkey {softkey} with a page"))),
        }
    }

    /// Fetches any path and query of the node, as they stand.
    ///
    /// # Errors
    /// [`Error`] when no answer came back.
    pub async fn raw_get(&self, path_and_query: &str) -> Result<Shown, Error> {
        self.get(&format!("{}{path_and_query}", self.base)).await
    }

    /// The same, as it comes through a proxy that says so.
    ///
    /// # Errors
    /// [`Error`] when no answer came back.
    pub async fn raw_get_via(&self, proxy: &str, path_and_query: &str) -> Result<Shown, Error> {
        let url = format!("{}{path_and_query}", self.base);
        self.send(self.client.get(url).header(http::header::VIA, proxy))
            .await
    }

    /// Sends a `HEAD` for any path and query of the node.
    ///
    /// # Errors
    /// [`Error`] when no answer came back.
    pub async fn head(&self, path_and_query: &str) -> Result<Head, Error> {
        let url = format!("{}{path_and_query}", self.base);
        let answer = self.client.head(url).send().await?;
        let text = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        Ok(Head {
            status: answer.status().as_u16(),
            content_type: text(http::header::CONTENT_TYPE),
            content_length: text(http::header::CONTENT_LENGTH).and_then(|t| t.parse().ok()),
        })
    }

    fn service_url(&self, device: &str, login_type: Option<LoginType>) -> String {
        let mut params = vec![("device", device), ("EMCC", "true")];
        if let Some(login_type) = login_type {
            params.push(("loginType", login_type.as_str()));
        }
        with_params(&format!("{}{PATH}", self.base), &params)
    }

    async fn get(&self, url: &str) -> Result<Shown, Error> {
        self.send(self.client.get(url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Shown, Error> {
        let started = Instant::now();
        let mut answer = request.send().await?;
        let status = answer.status().as_u16();
        let is_xml = answer
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/xml"));
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_PAGE_BYTES {
                return Err(Error::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let elapsed = started.elapsed();
        let body = String::from_utf8_lossy(&body).into_owned();
        let mut shown = if is_xml {
            read_page(&body)?
        } else {
            Shown {
                text: body.clone(),
                ..Shown::default()
            }
        };
        (shown.status, shown.body, shown.elapsed) = (status, body, elapsed);
        Ok(shown)
    }
}

fn with_params(url: &str, params: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params);
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{}", query.finish())
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "Title", default)]
    title: String,
    #[serde(rename = "Prompt", default)]
    prompt: String,
    #[serde(rename = "Text", default)]
    text: String,
    #[serde(rename = "SoftKeyItem", default)]
    softkeys: Vec<SoftKey>,
    #[serde(rename = "URL", default)]
    url: Option<String>,
    #[serde(rename = "InputItem", default)]
    inputs: Vec<InputItem>,
    #[serde(rename = "MenuItem", default)]
    menu: Vec<MenuItem>,
}

/// Reads a phone object.
///
/// # Errors
/// [`Error::Xml`] when it is not well-formed or not one.
pub fn read_page(xml: &str) -> Result<Shown, Error> {
    let object = root_name(xml)?;
    let page: Page = quick_xml::de::from_str(xml).map_err(Error::Xml)?;
    let headline = page.text.lines().next().unwrap_or_default();
    let em_code = em_code_in(headline);
    let reference = page
        .text
        .lines()
        .find_map(|line| line.strip_prefix("Ref: "))
        .map(str::to_owned);
    Ok(Shown {
        object,
        title: page.title,
        prompt: page.prompt,
        text: page.text,
        softkeys: page.softkeys,
        url: page.url,
        inputs: page.inputs,
        menu: page.menu,
        em_code,
        reference,
        ..Shown::default()
    })
}

/// The root's name; every event is read, so that what follows the root has to be well-formed as well.
fn root_name(xml: &str) -> Result<String, Error> {
    let malformed = |error: quick_xml::Error| Error::Xml(error.into());
    let mut reader = Reader::from_str(xml);
    let mut root = None;
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(element) | Event::Empty(element) if root.is_none() => {
                root = Some(element.name().as_ref().to_owned());
            }
            Event::Eof => break,
            _ => {}
        }
    }
    root.ok_or_else(|| Error::Missing("root element".to_owned()))
}

/// The EM code that ends a headline, `(23)`, or begins it, `[209]`.
fn em_code_in(headline: &str) -> Option<u16> {
    let in_front = headline
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map(|(digits, _)| digits);
    let at_the_end = headline
        .trim_end()
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once('('))
        .map(|(_, digits)| digits);
    in_front.or(at_the_end)?.parse().ok()
}

fn tls_config(certificates_pem: &str) -> Result<ClientConfig, Error> {
    let pem = certificates_pem.as_bytes();
    let trusted = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::Certificate(error.to_string()))?;
    if trusted.is_empty() {
        let cause = "the PEM text holds none".to_owned();
        return Err(Error::Certificate(cause));
    }
    let mut roots = RootCertStore::empty();
    // One that can't be an anchor can still be the server's own.
    roots.add_parsable_certificates(trusted.iter().cloned());
    let issued = if roots.is_empty() {
        None
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Some(verifier)
    };
    let mut config = config_with(RootCertStore::empty())?;
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Trusted { trusted, issued }));
    Ok(config)
}

fn config_with(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Certificate(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Accepts the certificates it was given, and what they issued. The former skips the path rules, by which a
/// self-signed certificate that says `CA:TRUE`, as Tomcat's do, can't be a server's own.
#[derive(Debug)]
struct Trusted {
    trusted: Vec<CertificateDer<'static>>,
    issued: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trusted.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.issued {
            Some(verifier) => verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
