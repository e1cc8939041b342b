# `terraform test` with providers that make nothing: what plans, applies too, and what may not be given is refused.

mock_provider "google" {
  mock_resource "google_storage_bucket" {
    defaults = { project_number = 123456789012 }
  }
  mock_resource "google_service_account" {
    defaults = {
      id     = "projects/waybill-demo/serviceAccounts/someone@waybill-demo.iam.gserviceaccount.com"
      name   = "projects/waybill-demo/serviceAccounts/someone@waybill-demo.iam.gserviceaccount.com"
      member = "serviceAccount:someone@waybill-demo.iam.gserviceaccount.com"
      email  = "someone@waybill-demo.iam.gserviceaccount.com"
    }
  }
}

mock_provider "external" {
  mock_data "external" {
    defaults = { result = { path = "archive.zip", digest = "0123456789abcdef0123456789abcdef" } }
  }
}

variables {
  project = "waybill-demo"
}

run "applies_to_an_empty_project" {
  command = apply

  assert {
    condition     = length(output.urls) == length(local.functions) && length(output.accounts) == length(local.functions)
    error_message = "A function has no address, or no account."
  }
  assert {
    condition     = alltrue([for name in keys(output.set_secrets) : strcontains(output.set_secrets[name], "gcloud secrets versions add ${name} ")])
    error_message = "A secret is not told how to be set."
  }
  assert {
    condition     = length(output.run_first) > 3
    error_message = "Nobody is told what to run first."
  }
}

run "what_may_not_be_given_is_refused" {
  command = plan
  variables {
    project             = "Not a project"
    region              = "Brazil"
    overlay             = "nowhere.yaml"
    operators           = ["allUsers"]
    notification_emails = ["ana"]
    environment         = { ploomes_to_milvus = { PRISMA_TOKEN_EXPORT = "not here" } }
    secrets             = { nobody = ["TOKEN"] }
  }
  expect_failures = [
    var.project,
    var.region,
    var.overlay,
    var.operators,
    var.notification_emails,
    var.environment,
    var.secrets,
  ]
}
