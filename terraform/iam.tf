# Who may do what. A function's `may` (functions.tf) is a list of these words:
#   books     reads and writes Firestore's one database
#   archive   reads, writes and deletes objects of the hub's own bucket
#   publish   publishes batches            continue  brings a run back to its source
#   report    publishes rows about what happened
#   jobs      sees which schedules are paused
#   pause     pauses and resumes them
#   tables    removes old rows of the monitoring tables
# What a topic takes is in channels.tf, a secret in modules/function.

locals {
  # A bucket knows the project's number, and asking for it takes no API that an empty project does not have.
  number       = google_storage_bucket.sources.project_number
  pubsub_agent = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  may = {
    for right in ["books", "archive", "jobs", "pause", "tables"] :
    right => { for key, function in local.functions : key => key if contains(function.may, right) }
  }
  # Nothing to remove where nothing is kept.
  _removers = length(local.monitored) > 0 ? local.may.tables : {}
}

resource "google_project_iam_member" "books" {
  for_each = local.may.books
  project  = var.project
  role     = "roles/datastore.user"
  member   = module.function[each.key].member
  condition {
    title      = "the books"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.books.name}\""
  }
}

resource "google_storage_bucket_iam_member" "archive" {
  for_each = local.may.archive
  bucket   = google_storage_bucket.archive.name
  role     = "roles/storage.objectUser"
  member   = module.function[each.key].member
}

resource "google_project_iam_member" "jobs" {
  for_each = local.may.jobs
  project  = var.project
  role     = "roles/cloudscheduler.viewer"
  member   = module.function[each.key].member
}

# No role of Google's lets anybody pause a job without letting him make one.
resource "google_project_iam_custom_role" "pauses" {
  for_each    = length(local.may.pause) > 0 ? toset(["waybillPauses"]) : toset([])
  project     = var.project
  role_id     = each.key
  title       = "Waybill: pauses and resumes schedules"
  permissions = ["cloudscheduler.jobs.enable", "cloudscheduler.jobs.get", "cloudscheduler.jobs.list", "cloudscheduler.jobs.pause"]
  depends_on  = [google_project_service.enabled]
}

resource "google_project_iam_member" "pause" {
  for_each = local.may.pause
  project  = var.project
  role     = "projects/${var.project}/roles/${google_project_iam_custom_role.pauses["waybillPauses"].role_id}"
  member   = module.function[each.key].member
}

resource "google_project_iam_member" "queries" {
  for_each = merge(local._removers, local._queriers)
  project  = var.project
  role     = "roles/bigquery.jobUser"
  member   = module.function[each.key].member
}

# Who calls the functions. Cloud Run checks the token, and lets nobody else in.

resource "google_service_account" "schedule" {
  account_id   = "waybill-schedule"
  display_name = "Waybill: what Cloud Scheduler calls functions as"
  depends_on   = [google_project_service.enabled]
}

resource "google_service_account" "push" {
  account_id   = "waybill-push"
  display_name = "Waybill: what Pub/Sub pushes messages as"
  depends_on   = [google_project_service.enabled]
}

# Pub/Sub signs its tokens as that account. Projects made before April 2021 need to be told so.
resource "google_service_account_iam_member" "signs" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
  depends_on         = [module.channel] # the agent is there once there is a topic
}

# Who builds the images: reads the source that Cloud Functions puts into a bucket of its own, logs, and writes to one
# repository.

resource "google_service_account" "build" {
  account_id   = "waybill-build"
  display_name = "Waybill: what builds the functions"
  depends_on   = [google_project_service.enabled]
}

resource "google_project_iam_member" "build" {
  for_each = {
    "roles/logging.logWriter"    = []
    "roles/storage.objectViewer" = ["projects/_/buckets/gcf-v2-sources-${local.number}-"]
  }
  project = var.project
  role    = each.key
  member  = google_service_account.build.member
  dynamic "condition" {
    for_each = each.value
    content {
      title      = "the functions' source"
      expression = "resource.name.startsWith(\"${condition.value}\")"
    }
  }
}

resource "google_artifact_registry_repository_iam_member" "build" {
  location   = var.region
  repository = google_artifact_registry_repository.images.repository_id
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}
