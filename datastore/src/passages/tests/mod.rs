mod cutting;
mod searching;
mod words;
