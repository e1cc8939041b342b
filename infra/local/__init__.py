"""The embedded home: every port on SQLite and a folder, for one machine."""
