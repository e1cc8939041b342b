# The places of secrets. Their values are never in a plan, a state or a file here: a person adds them (see outputs).

resource "google_secret_manager_secret" "each" {
  for_each  = setunion(values(local.secrets)...)
  project   = var.project
  secret_id = each.key
  replication {
    auto {}
  }
  depends_on = [google_project_service.enabled]
}
