resource "google_project_service" "enabled" {
  for_each = toset(concat(
    [
      "artifactregistry", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "cloudscheduler", "firestore", "iam",
      "logging", "monitoring", "pubsub", "run", "secretmanager", "storage",
    ],
    length(local.monitored) + length(local._queriers) > 0 ? ["bigquery"] : [],
  ))
  project            = var.project
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
