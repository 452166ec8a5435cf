//! `get_extra_info`: of the TLS connection what the `ssl.SSLObject` tells, all else from the transport below.

use pyo3::prelude::*;

use super::TlsTransport;

impl<'py> TlsTransport<'_, 'py> {
    pub(super) fn extra_info(
        self,
        name: &Bound<'py, PyAny>,
        default: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let (context, ssl_object, below) = self.public(|public| {
            let objects = public.objects.lock();
            (
                objects.context.clone_ref(py),
                objects.ssl_object.as_ref().map(|object| object.clone_ref(py).into_bound(py)),
                objects.below.as_ref().map(|below| below.clone_ref(py).into_bound(py)),
            )
        });
        if let Ok(name) = name.extract::<String>() {
            match (name.as_str(), ssl_object) {
                ("sslcontext", _) => return Ok(context.into_bound(py)),
                ("ssl_object", Some(object)) => return Ok(object),
                // Asked of the connection now: cheaper than at each handshake, and right after a renewed key.
                ("peercert", Some(object)) => return object.call_method0("getpeercert"),
                ("cipher", Some(object)) => return object.call_method0("cipher"),
                ("compression", Some(object)) => return object.call_method0("compression"),
                _ => {}
            }
        }
        match below {
            Some(below) => below.call_method1("get_extra_info", (name, default)),
            None => Ok(default),
        }
    }
}
