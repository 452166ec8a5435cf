//! The Python module `tokioloop._tokioloop`: everything that Python sees of the crate is named here.

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use crate::event_loop;
use crate::event_loop::life::{self, binding};
use crate::{executor, net, pool, py, streams, sys};

#[pymodule(gil_used = false)]
fn _tokioloop(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything static is touched: all of it is the main interpreter's.
    refuse_subinterpreters(module.py())?;
    crate::observe::init();
    py::panic::init(module, "tokioloop")?;
    sys::detached::set_hook(py::away::detach);
    py::raw::init(module.py());
    py::names::init(module.py())?;
    binding::init(module.py())?;
    event_loop::init(module)?;
    net::sock::init(module)?;
    net::stream::init(module)?;
    net::tls::init(module)?;
    module.add_function(wrap_pyfunction!(net::tls::_tls_engine, module)?)?;
    net::datagram::init(module)?;
    pool::init(module)?;
    streams::init(module)?;
    py::pyclass::complete::<executor::ThreadQueue>(module.py());
    module.add_class::<executor::ThreadQueue>()?;
    module.add_class::<net::balance::Balance>()?;
    module.add_class::<net::child::ChildDescriptor>()?;
    module.add_class::<net::dns::Lookup>()?;
    module.add_class::<net::tls::ServerConfig>()?;
    module.add_class::<net::tls::ClientConfig>()?;
    module.add_class::<net::tls::Connection>()?;
    module.add_function(wrap_pyfunction!(binding::get_running_loop, module)?)?;
    module.add_function(wrap_pyfunction!(binding::get_event_loop, module)?)?;
    module.add_function(wrap_pyfunction!(binding::bound_loop, module)?)?;
    module.add_function(wrap_pyfunction!(binding::bind_loop, module)?)?;
    module.add_function(wrap_pyfunction!(life::registry::loops, module)?)?;
    module.add_function(wrap_pyfunction!(py::runtime::_configure_runtime, module)?)?;
    module.add_function(wrap_pyfunction!(py::runtime::_runtime_metrics, module)?)?;
    module.add_function(wrap_pyfunction!(py::modules::_needs_no_gil, module)?)?;
    module.add_function(wrap_pyfunction!(event_loop::_own_methods, module)?)?;
    life::fork::init(module)?;
    module.add_function(wrap_pyfunction!(life::exit::_begin_exit, module)?)?;
    module.add_function(wrap_pyfunction!(event_loop::signal::_is_signal_wanted, module)?)?;
    module.add_function(wrap_pyfunction!(event_loop::signal::_raise_signal, module)?)?;
    module.add_function(wrap_pyfunction!(event_loop::signal::_insist_on_signal, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}

/// Types, names and registries are static and hold the objects of one interpreter. The interpreter itself asks whether the
/// module may be loaded only where a subinterpreter is an isolated one.
fn refuse_subinterpreters(py: Python<'_>) -> PyResult<()> {
    if py::interpreter::is_main_interpreter(py) {
        return Ok(());
    }
    Err(PyImportError::new_err("tokioloop works in the main interpreter only, and this is a subinterpreter"))
}
