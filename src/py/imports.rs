//! Python objects that are imported at first use and kept.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

macro_rules! imports {
    ($($(#[$doc:meta])* $name:ident = $module:literal . $attribute:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
                static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                CELL.import(py, $module, $attribute)
            }
        )*
    };
}

imports! {
    asyncio_future = "asyncio"."Future";
    asyncio_handle = "asyncio"."Handle";
    asyncio_timer_handle = "asyncio"."TimerHandle";
    asyncio_task = "asyncio"."Task";
    swap_current_task = "asyncio.tasks"."_swap_current_task";
    eager_task_factory = "asyncio"."eager_task_factory";
    #[cfg(Py_3_14)]
    add_to_awaited_by = "asyncio.futures"."future_add_to_awaited_by";
    #[cfg(Py_3_14)]
    discard_from_awaited_by = "asyncio.futures"."future_discard_from_awaited_by";
    get_future_loop = "asyncio.futures"."_get_loop";
    convert_future_exc = "asyncio.futures"."_convert_future_exc";
    future_repr = "asyncio.base_futures"."_future_repr";
    task_repr = "asyncio.base_tasks"."_task_repr";
    task_get_stack = "asyncio.base_tasks"."_task_get_stack";
    task_print_stack = "asyncio.base_tasks"."_task_print_stack";
    foreign_repr = "tokioloop._loop.listing"."_foreign_repr";
    traceback_extract_stack = "traceback"."extract_stack";
    invalid_state_error = "asyncio.exceptions"."InvalidStateError";
    cancelled_error = "asyncio.exceptions"."CancelledError";
    generator_type = "types"."GeneratorType";
    asyncio_transport = "asyncio"."Transport";
    asyncio_datagram_transport = "asyncio"."DatagramTransport";
    asyncio_read_transport = "asyncio"."ReadTransport";
    asyncio_write_transport = "asyncio"."WriteTransport";
    buffered_protocol = "asyncio"."BufferedProtocol";
    stream_reader = "asyncio"."StreamReader";
    incomplete_read_error = "asyncio"."IncompleteReadError";
    limit_overrun_error = "asyncio"."LimitOverrunError";
    iscoroutine = "asyncio.coroutines"."iscoroutine";
    iscoroutinefunction = "inspect"."iscoroutinefunction";
    coroutines = "asyncio"."coroutines";
    format_callback_source = "asyncio.format_helpers"."_format_callback_source";
    extract_stack = "asyncio.format_helpers"."extract_stack";
    get_running_loop_or_none = "asyncio"."_get_running_loop";
    set_running_loop = "asyncio"."_set_running_loop";
    asyncio_get_event_loop = "asyncio.events"."get_event_loop";
    asyncio_get_running_loop = "asyncio.events"."get_running_loop";
    memory_bio = "ssl"."MemoryBIO";
    ssl_object = "ssl"."SSLObject";
    ssl_want_read = "ssl"."SSLWantReadError";
    ssl_want_write = "ssl"."SSLWantWriteError";
    ssl_zero_return = "ssl"."SSLZeroReturnError";
    ssl_error = "ssl"."SSLError";
    ssl_certificate_error = "ssl"."CertificateError";
    sendfile_not_available = "asyncio"."SendfileNotAvailableError";
    sendfile_mode = "asyncio.constants"."_SendfileMode";
    transport_socket = "asyncio.trsock"."TransportSocket";
    logger = "asyncio.log"."logger";
    socket_type = "socket"."socket";
    address_family = "socket"."AddressFamily";
    socket_kind = "socket"."SocketKind";
    gaierror = "socket"."gaierror";
    get_asyncgen_hooks = "sys"."get_asyncgen_hooks";
    set_asyncgen_hooks = "sys"."set_asyncgen_hooks";
    get_origin_depth = "sys"."get_coroutine_origin_tracking_depth";
    set_origin_depth = "sys"."set_coroutine_origin_tracking_depth";
    getframe = "sys"."_getframe";
    set_wakeup_fd = "signal"."set_wakeup_fd";
    threads_by_ident = "threading"."_active";
    condition = "threading"."Condition";
    partial = "functools"."partial";
    concurrent_cancelled_error = "concurrent.futures"."CancelledError";
    job_future = "tokioloop._pool.job"."JobFuture";
    wait_for_job = "tokioloop._pool.job"."wait_for";
    log_failed_callback = "tokioloop._pool.job"."log_failed_callback";
    warn = "warnings"."warn";
}
