//! TLS on a machine whose clock may not be set yet: certificates are held against the best time there is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::clock::Clock;

/// The authorities in a PEM file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore> {
    let shown = path.display();
    let pem = std::fs::read(path).with_context(|| format!("reading server.tls_ca {shown}"))?;
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.with_context(|| format!("server.tls_ca {shown} is not PEM"))?;
        authorities.add(certificate).with_context(|| format!("server.tls_ca {shown} holds a wrong certificate"))?;
    }
    ensure!(!authorities.is_empty(), "server.tls_ca {shown} holds no certificate");
    Ok(authorities)
}

/// No certificate is issued for so many seconds (200 years).
const FOR_EVER: u64 = 200 * 365 * 86_400;

/// Until when the server's certificate holds that was last shown and found right.
#[derive(Clone, Debug, Default)]
pub struct Expiry(Arc<Mutex<Option<Timestamp>>>);

impl Expiry {
    /// `None` before the first connection, and for a certificate that holds for more than 200 years.
    #[must_use]
    pub fn known(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the rules say of a time at which every certificate has run out.
    fn note(&self, verdict: &Result<ServerCertVerified, Error>) {
        if let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) = verdict {
            let until = i64::try_from(not_after.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }
}

/// TLS that trusts these authorities, or those of the platform, by the time that `clock` tells. `expiry`, where there is one, is told
/// of the certificates.
pub(super) fn config(
    authorities: Option<&Arc<RootCertStore>>,
    clock: &Clock,
    expiry: Option<&Expiry>,
) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let by_rules: Arc<dyn ServerCertVerifier> = match authorities {
        Some(roots) => WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
            .build()
            .context("taking the authorities of server.tls_ca")?,
        None => Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                .context("taking the authorities of the platform; name others by server.tls_ca")?,
        ),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing the versions of TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            by_rules,
            clock: clock.clone(),
            expiry: expiry.cloned(),
        }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Everything by the rules, but for the time of a clock that is not synchronised.
///
/// An authority issues no certificate before its time, so a valid signature says that it is at least as late as `notBefore`: a clock that
/// lags is moved up to there, for this one check. What such a clock cannot tell is whether a certificate has run out since; everything
/// else (authority, name, signature, use) is checked as always. A synchronised clock is never moved.
#[derive(Debug)]
struct Verifier {
    by_rules: Arc<dyn ServerCertVerifier>,
    clock: Clock,
    expiry: Option<Expiry>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let label = self.clock.now().map_err(|error| Error::General(format!("{error:#}")))?.label;
        let mut time = u64::try_from(label.wall.as_second()).unwrap_or(0);
        let verdict_at = |time: u64| {
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time));
            self.by_rules.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        loop {
            match verdict_at(time) {
                // Later each time round, and there are only so many certificates.
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if !label.synced && not_before.as_secs() > time =>
                {
                    time = not_before.as_secs();
                }
                Err(
                    error @ Error::InvalidCertificate(
                        CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. },
                    ),
                ) => {
                    return Err(Error::General(format!(
                        "{error}; this machine's clock says {}{}: set it if it is wrong, else renew the server's certificate",
                        label.wall,
                        if label.synced { "" } else { " and is not synchronised" },
                    )));
                }
                verdict => {
                    if let (Ok(_), Some(expiry)) = (&verdict, &self.expiry) {
                        expiry.note(&verdict_at(time.saturating_add(FOR_EVER)));
                    }
                    return verdict;
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_rules.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_rules.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_rules.supported_verify_schemes()
    }
}
