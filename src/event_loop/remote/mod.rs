//! What other threads ask of a loop, and how it travels through the loop's inbox.
//!
//! | file     | what it keeps                                                       |
//! |----------|---------------------------------------------------------------------|
//! | `call`   | a call: the function, its arguments and context                     |
//! | `record` | the memory of a call, shared by the queue and the caller's Handle   |
//! | `post`   | a message: a call, a stop, or the end of work done elsewhere        |

mod call;
mod post;
mod record;

pub use call::RemoteCall;
pub use post::{Finish, Post};
pub use record::Record;
