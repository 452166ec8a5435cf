//! `get_extra_info`: the facts of the TLS connection from the `ssl.SSLObject`, all else from the transport below.

use pyo3::prelude::*;

use super::TlsTransport;

impl<'py> TlsTransport<'_, 'py> {
    pub(super) fn extra_info(
        self,
        name: &Bound<'py, PyAny>,
        default: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let wanted = name.extract::<String>().unwrap_or_default();
        let (found, below) = self.public(|public| {
            let objects = public.objects.lock(py);
            let shown = objects.ssl_object.as_ref();
            let found = match wanted.as_str() {
                "sslcontext" => Some(&objects.context),
                "ssl_object" => shown.map(|shown| &shown.object),
                "peercert" => shown.map(|shown| &shown.peercert),
                "cipher" => shown.map(|shown| &shown.cipher),
                "compression" => shown.map(|shown| &shown.compression),
                _ => None,
            };
            (
                found.map(|found| found.clone_ref(py).into_bound(py)),
                objects.below.as_ref().map(|below| below.clone_ref(py).into_bound(py)),
            )
        });
        match (found, below) {
            (Some(found), _) => Ok(found),
            (None, Some(below)) => below.call_method1("get_extra_info", (name, default)),
            (None, None) => Ok(default),
        }
    }
}
