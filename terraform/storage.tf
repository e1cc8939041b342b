# What the hub keeps as files (archives of batches, content of failures, uploads, exports), and the functions' source.

resource "google_storage_bucket" "archive" {
  #checkov:skip=CKV_GCP_62:Only the hub's accounts reach it, and audit logs of Cloud Storage say who did
  #checkov:skip=CKV_GCP_78:An older version would keep what a person asked to have forgotten
  name                        = "${var.project}-waybill"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false # `terraform destroy` stops here, unless it is empty

  # Clean-up removes what is old, once it is settled. Nothing else may be left of what it or `forget` removed: neither
  # for a while, nor as an older version, nor as a part of an upload.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  versioning {
    enabled = false
  }
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }
  depends_on = [google_project_service.enabled]
}

resource "google_storage_bucket" "sources" {
  #checkov:skip=CKV_GCP_62:It holds the code that is in the repository, and nothing else
  name                        = "${var.project}-waybill-sources"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  # The source of what ran last month can be looked at.
  versioning {
    enabled = true
  }
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 30
    }
    action {
      type = "Delete"
    }
  }
  depends_on = [google_project_service.enabled]
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google's own keys encrypt it; whoever has to hold the keys sets an organisation policy
  repository_id = "waybill"
  description   = "Images of the functions"
  location      = var.region
  format        = "DOCKER"
  cleanup_policies {
    id     = "keep"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "old"
    action = "DELETE"
    condition {
      older_than = "2592000s"
    }
  }
  depends_on = [google_project_service.enabled]
}
