//! Refuses help with crime and weapons, forged documents, self-harm, sexual content about children, threats and hate.

#![warn(missing_docs)]

pub mod judge;
