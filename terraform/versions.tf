terraform {
  required_version = ">= 1.9"
  required_providers {
    external = {
      source  = "hashicorp/external"
      version = ">= 2.3, < 3.0"
    }
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8.0"
    }
  }
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = merge({ app = "waybill" }, var.labels)
}
