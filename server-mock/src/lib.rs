//! server-mock
