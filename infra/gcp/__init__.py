"""The home on Google Cloud: every port on Firestore, Pub/Sub, Cloud Storage and Cloud Scheduler."""
