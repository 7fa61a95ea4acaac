//! The server's addresses as they were last looked up: a resolver that died with its link does not keep a message from another link.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// What the server's name stands for; shared by every client, and asked instead of DNS as soon as it is known.
#[derive(Clone, Debug, Default)]
pub struct KnownAddresses(Arc<Mutex<Vec<SocketAddr>>>);

impl KnownAddresses {
    /// Remembers what a lookup has found. An empty answer changes nothing.
    pub fn learn(&self, addresses: &[SocketAddr]) {
        if !addresses.is_empty() {
            addresses.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn known(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Resolve for KnownAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.known();
        Box::pin(async move {
            if !known.is_empty() {
                return Ok(Box::new(known.into_iter()) as Addrs);
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
