# A function, the account that it runs as, the secrets that it may read, and who may call it.

locals {
  # An account's id has 30 characters at most.
  account_id = length(var.name) <= 30 ? var.name : "${substr(var.name, 0, 23)}-${substr(sha1(var.name), 0, 6)}"
}

resource "google_service_account" "this" {
  project      = var.project
  account_id   = local.account_id
  display_name = "Waybill: ${var.description}"
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each  = var.secrets
  project   = var.project
  secret_id = each.value.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this.member
}

resource "google_cloudfunctions2_function" "this" {
  project     = var.project
  location    = var.region
  name        = var.name
  description = var.description
  labels      = var.labels

  build_config {
    runtime               = "python311"
    entry_point           = var.entry_point
    service_account       = var.build.service_account
    docker_repository     = var.build.repository
    environment_variables = var.build.environment
    source {
      storage_source {
        bucket = var.source_archive.bucket
        object = var.source_archive.object
      }
    }
  }

  service_config {
    available_cpu                    = "1"
    available_memory                 = var.scaling.memory
    timeout_seconds                  = var.scaling.timeout
    max_instance_request_concurrency = var.scaling.concurrency
    min_instance_count               = 0
    max_instance_count               = var.scaling.instances
    all_traffic_on_latest_revision   = true
    ingress_settings                 = var.from_anywhere ? "ALLOW_ALL" : "ALLOW_INTERNAL_ONLY"
    service_account_email            = google_service_account.this.email

    # The archive's own packages come before anything installed, and there is a thread for each request.
    environment_variables = merge(var.environment, {
      PYTHONPATH = "/workspace"
      THREADS    = tostring(var.scaling.concurrency)
    })

    dynamic "secret_environment_variables" {
      for_each = var.secrets
      content {
        key        = secret_environment_variables.key
        project_id = var.project
        secret     = secret_environment_variables.value.id
        version    = secret_environment_variables.value.version
      }
    }
  }

  # It does not start before it may read its secrets.
  depends_on = [google_secret_manager_secret_iam_member.reads]
}

resource "google_cloud_run_v2_service_iam_member" "calls" {
  for_each = var.invokers
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this.name
  role     = "roles/run.invoker"
  member   = each.value
}
